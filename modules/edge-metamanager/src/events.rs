//! What MetaManager counts and says: a named event is one line of the log and one counter.

use beehive::Env;

/// Something worth a line.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// The store did not take a batch of the cloud, which sends it again.
    BatchRefused { reason: &'a str },
    /// What the store holds could not be read; the cloud asks again.
    InventoryUnread { reason: &'a str },
    /// The outbox could not be read; tried again at the next look.
    OutboxUnread { reason: &'a str },
    /// That reports were confirmed is not on disk: they are sent again, marked.
    ConfirmationRefused { reason: &'a str },
    /// Rows of the outbox that are broken, and go.
    ReportsBroken { rows: usize },
    /// A row of a kind or format that this release does not know: it stays for the newer one that wrote it.
    ReportKept { kind: &'a str },
    /// A report that this cloud does not understand: it goes.
    ReportUnsupported { capability: &'a str },
}

impl Event<'_> {
    fn name(&self) -> &'static str {
        match self {
            Event::BatchRefused { .. } => "metamanager_batch_refused",
            Event::InventoryUnread { .. } => "metamanager_inventory_unread",
            Event::OutboxUnread { .. } => "metamanager_outbox_unread",
            Event::ConfirmationRefused { .. } => "metamanager_confirmation_refused",
            Event::ReportsBroken { .. } => "metamanager_reports_broken",
            Event::ReportKept { .. } => "metamanager_report_kept",
            Event::ReportUnsupported { .. } => "metamanager_report_unsupported",
        }
    }

    /// Says and counts it.
    pub(crate) fn happened(self, env: &Env) {
        env.count(self.name());
        match self {
            Event::BatchRefused { reason } => tracing::error!(reason, "batch not committed"),
            Event::InventoryUnread { reason } => tracing::error!(reason, "store does not say what it holds"),
            Event::OutboxUnread { reason } => tracing::error!(reason, "outbox cannot be read"),
            Event::ConfirmationRefused { reason } => tracing::error!(reason, "confirmation not committed"),
            Event::ReportsBroken { rows } => {
                tracing::error!(rows, "rows of the outbox are no reports and are dropped");
            }
            Event::ReportKept { kind } => {
                tracing::warn!(kind, "row of the outbox is of a newer release; it is kept and not sent");
            }
            Event::ReportUnsupported { capability } => {
                tracing::warn!(
                    capability,
                    "the cloud does not understand this kind of report; it is dropped"
                );
            }
        }
    }
}

/// Changes that were committed, and reports that were confirmed.
pub(crate) const CHANGES_APPLIED: &str = "metamanager_changes_applied";
pub(crate) const REPORTS_CONFIRMED: &str = "metamanager_reports_confirmed";
