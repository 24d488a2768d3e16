//! What can go wrong in a run.

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A network path is cut both ways.
    Cut,
    /// Nothing goes up any more.
    CutUp,
    /// Nothing comes down any more.
    CutDown,
    /// A network path carries little.
    Slow,
    /// Everything comes late.
    Delayed,
    /// Streams overtake each other.
    Reordered,
    /// The path changes: nothing arrives for a while, and then all of it does.
    Rebound,
    /// A link falls silent for ever and does not end, as QUIC does after too many changes of its path.
    Silenced,
    /// What was sent arrives, and its answer does not: so it is sent twice.
    AnswerLost,
    /// EdgeCore is killed, and started again.
    NodeKilled,
    /// CloudCore is killed, and started again.
    CloudKilled,
    /// A daemon is stopped in order, and an actor of it panics while it stops.
    PanicWhileStopping,
    /// An actor panics at a message, or while it begins anew.
    ActorPanicked,
    /// A task that an actor has spawned panics.
    TaskPanicked,
    /// A node's disk takes no writes.
    DiskFull,
    /// The API server is away.
    ApiAway,
    /// Each request to the API server, and each of its answers, takes a while of its own.
    ApiSlow,
    /// A node goes on to another CloudCore while the one before still writes for it.
    Takeover,
    /// A container is killed.
    ContainerKilled,
    /// The container of a pod that is not restarted ends well.
    ContainerEnded,
    /// All of a runtime's state is gone.
    RuntimeWiped,
    /// A row of a later release is in the outbox.
    ReportUnknown,
    /// The wall clock of a machine jumps, a node's or a CloudCore's, back or ahead. Nobody sets it right at the end.
    ClockJumped,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 23] = [
        Fault::Cut,
        Fault::CutUp,
        Fault::CutDown,
        Fault::Slow,
        Fault::Delayed,
        Fault::Reordered,
        Fault::Rebound,
        Fault::Silenced,
        Fault::AnswerLost,
        Fault::NodeKilled,
        Fault::CloudKilled,
        Fault::PanicWhileStopping,
        Fault::ActorPanicked,
        Fault::TaskPanicked,
        Fault::DiskFull,
        Fault::ApiAway,
        Fault::ApiSlow,
        Fault::Takeover,
        Fault::ContainerKilled,
        Fault::ContainerEnded,
        Fault::RuntimeWiped,
        Fault::ReportUnknown,
        Fault::ClockJumped,
    ];
}
