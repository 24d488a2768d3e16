//! Deliberate defects, for showing that a simulation can fail.
//!
//! The switch is there only with the feature `defects`, which no daemon is built with; without it [`is_planted`] is
//! `false` at compile time and what it guards is gone.

/// A mistake that somebody could make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Defect {
    /// A batch from the cloud is acknowledged although its commit failed.
    AckBeforeCommit,
    /// A delete is taken for sent without being sent.
    DroppedDelete,
    /// A report is confirmed although the cloud's own write failed.
    ConfirmBeforeWrite,
    /// A report leaves the outbox when it is sent.
    ForgottenReport,
    /// What runs counts as changed, although nothing that it is made of has, and is started anew.
    NeedlessRestart,
    /// After a newer version of an object the older one is sent again.
    StaleVersion,
    /// Events and telemetry are taken although the outbox is full.
    BoundlessOutbox,
    /// What may have been sent before carries no mark.
    UnmarkedRepeat,
    /// Telemetry is sent the newest first.
    ReorderedTelemetry,
    /// Who has lost something to another still writes what it has heard about it.
    StaleOwner,
    /// What is newer is decided by a clock that others set.
    OrderByClock,
    /// A panic in a task that an actor has spawned is heard by nobody.
    LostTaskPanic,
    /// Who fails while it stops does not say that it has ended.
    SilentEnd,
    /// The number of a session is counted from 1 again by an actor that begins anew.
    SessionsFromOne,
    /// Who begins anew does not ask for what it knew before.
    NotListedAgain,
    /// Who begins anew is not told who is there.
    SessionsNotTold,
    /// What is unknown stays at the head of its queue.
    UnknownHoldsQueue,
    /// What has ended for good is forgotten with what it ran in.
    EndForgotten,
}

impl Defect {
    /// All of them.
    pub const ALL: [Defect; 18] = [
        Defect::AckBeforeCommit,
        Defect::DroppedDelete,
        Defect::ConfirmBeforeWrite,
        Defect::ForgottenReport,
        Defect::NeedlessRestart,
        Defect::StaleVersion,
        Defect::BoundlessOutbox,
        Defect::UnmarkedRepeat,
        Defect::ReorderedTelemetry,
        Defect::StaleOwner,
        Defect::OrderByClock,
        Defect::LostTaskPanic,
        Defect::SilentEnd,
        Defect::SessionsFromOne,
        Defect::NotListedAgain,
        Defect::SessionsNotTold,
        Defect::UnknownHoldsQueue,
        Defect::EndForgotten,
    ];
}

#[cfg(feature = "defects")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Defect>> = const { std::cell::Cell::new(None) };
}

/// Plants a defect into everything that runs on this thread, or takes it out again.
#[cfg(feature = "defects")]
pub fn plant(defect: Option<Defect>) {
    PLANTED.set(defect);
}

/// Whether the defect is planted on this thread.
#[cfg(feature = "defects")]
pub fn is_planted(defect: Defect) -> bool {
    PLANTED.get() == Some(defect)
}

/// Nothing is planted in a daemon.
#[cfg(not(feature = "defects"))]
pub const fn is_planted(_: Defect) -> bool {
    false
}
