//! The state of one property: when it is read and written, and what of it edgecore has. Pure: the time comes in.

use std::time::{Duration, SystemTime};

use beehive::Moment;

use crate::anomaly::{AnomalyWatch, Judged};
use crate::backoff::Backoff;
use crate::plan::{Desired, DesiredValue, PropertyPlan, RefusedProperty};
use crate::twin::{PropertyTwin, TwinValue};
use crate::value::{Kind, Value};

/// 1 min: a property that cannot be read is tried at least that often, and others are rid of it meanwhile.
const REREAD_MAX: Duration = Duration::from_secs(60);

/// The state of one property.
#[derive(Debug)]
pub(crate) struct PropertyState {
    name: String,
    kind: Kind,
    /// How often to report what did not change.
    report_cycle: Option<Duration>,
    /// Its value is told: it is not only read to be pushed.
    is_told: bool,
    /// None: it is not read.
    next_read: Option<Moment>,
    /// The device sends it by itself, so that it is not read in its cycle.
    is_subscribed: bool,
    /// How long until the next try after one that failed.
    reread: Backoff,
    reading: Option<(Reading, SystemTime)>,
    /// When there was last a value.
    good_at: Option<Moment>,
    observed: String,
    /// Why the device was not given what is desired.
    refusal: Option<String>,
    write: Write,
    /// What was last reported, and when.
    reported: Option<(TwinValue, Moment)>,
    /// What edgecore did not take, and until when it is not asked again.
    deferred: Option<(TwinValue, Moment)>,
    /// What edgecore refused for good, and why: the reason is told in place of that value, until it changes.
    rejected: Option<(TwinValue, String)>,
    /// It cannot be read now. Known, so that it is logged once, whatever the words.
    is_unreadable: bool,
    /// edgecore does not take what was read. Known, so that it is logged once.
    is_untaken: bool,
    /// The device is not reached.
    is_away: bool,
    /// What is desired cannot be written now.
    is_unwritable: bool,
    /// What is wrong beside the value: where its readings are pushed, or with the device as it is described.
    side_fault: Option<String>,
    /// What looks at its readings first.
    watch: Option<AnomalyWatch>,
}

/// What is known of a property.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reading {
    Value(String),
    /// A value that the device doubts, for this reason.
    Doubtful(String, String),
    /// There is no value, for this reason.
    Missing(String),
    /// There is a value, which the device may doubt, and edgecore does not take it, for this reason. It is not kept.
    Untaken {
        reason: String,
        doubt: Option<String>,
    },
}

#[derive(Debug, Clone, PartialEq)]
enum Write {
    /// Nothing is desired, or the device has it, or it is not to have it.
    Done,
    /// The device is to get this, not before that time.
    Due(DesiredValue, Moment),
}

impl PropertyState {
    pub(crate) fn new<V>(plan: &PropertyPlan<V>, now: Moment) -> Self {
        let mut property = PropertyState::named(plan.name.clone(), plan.kind);
        property.follow_plan(plan, now);
        property
    }

    /// One that cannot be served as it is described: all that is told of it is why.
    pub(crate) fn refused(refused: RefusedProperty, at: SystemTime) -> Self {
        let RefusedProperty { name, reason, report_cycle } = refused;
        let mut property = PropertyState::named(name, Kind::Text);
        property.report_cycle = report_cycle;
        property.reading = Some((Reading::Missing(reason), at));
        property
    }

    fn named(name: String, kind: Kind) -> Self {
        PropertyState {
            name,
            kind,
            report_cycle: None,
            is_told: true,
            next_read: None,
            is_subscribed: false,
            reread: Backoff::new(REREAD_MAX, REREAD_MAX),
            reading: None,
            good_at: None,
            observed: String::new(),
            refusal: None,
            write: Write::Done,
            reported: None,
            deferred: None,
            rejected: None,
            is_unreadable: false,
            is_untaken: false,
            is_away: false,
            is_unwritable: false,
            side_fault: None,
            watch: None,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Something is wrong beside the value, or nothing is.
    pub(crate) fn set_side_fault(&mut self, fault: Option<String>) {
        self.side_fault = fault;
    }

    /// What looks at its readings from now on. One that is described as before goes on with what it knows.
    pub(crate) fn set_watch(&mut self, watch: Option<AnomalyWatch>) {
        let is_known = self.watch.iter().zip(&watch).any(|(before, now)| before.is_as(now));
        if !is_known {
            self.watch = watch;
        }
    }

    /// What becomes of a good reading.
    pub(crate) fn judge(&mut self, value: &Value, at: SystemTime) -> Judged {
        self.watch.as_mut().map_or(Judged::UNWATCHED, |watch| watch.judge(value, at))
    }

    /// The plan changed, but not where the property is.
    pub(crate) fn follow_plan<V>(&mut self, plan: &PropertyPlan<V>, now: Moment) {
        self.report_cycle = plan.report_cycle;
        self.is_told = plan.is_told;
        self.next_read = plan.collect.map(|_| now);
        let cycle = plan.collect.unwrap_or(REREAD_MAX);
        self.reread = Backoff::new(cycle, REREAD_MAX.max(cycle));
        self.refusal = None;
        self.is_unwritable = false;
        self.write = match &plan.desired {
            // Whether it was given up is the device's word alone.
            Desired::Value(desired)
                if desired.text != self.observed || plan.is_command || desired.value.is_none() =>
            {
                Write::Due(desired.clone(), now)
            }
            Desired::Value(_) => Write::Done,
            Desired::Invalid(reason) => {
                self.refusal = Some(reason.clone());
                Write::Done
            }
            Desired::Unset => {
                self.observed.clear();
                Write::Done
            }
        };
        if plan.collect.is_none() {
            self.reading = None;
        }
    }

    /// A new connection: the device may have been switched off and have forgotten what it was given. Commands are not repeated.
    /// After it `was_away`, everything is read at once.
    pub(crate) fn reconnected<V>(&mut self, plan: &PropertyPlan<V>, was_away: bool, now: Moment) {
        if was_away {
            self.next_read = plan.collect.map(|_| now);
            self.reread.reset();
        }
        if let Desired::Value(desired) = &plan.desired
            && !plan.is_command
        {
            self.write = Write::Due(desired.clone(), now);
        }
    }

    /// What to write now.
    pub(crate) fn to_write(&self, now: Moment) -> Option<&DesiredValue> {
        match &self.write {
            Write::Due(desired, at) if *at <= now => Some(desired),
            Write::Due(..) | Write::Done => None,
        }
    }

    /// The device has the desired value. It is read again at once, if it is read. Whether it could not be written before.
    pub(crate) fn was_written(&mut self, now: Moment) -> bool {
        if let Write::Due(desired, _) = std::mem::replace(&mut self.write, Write::Done) {
            self.observed = desired.text;
        }
        self.read_soon(now);
        self.refusal = None;
        std::mem::take(&mut self.is_unwritable)
    }

    /// The device did not take it; it is tried again then. Whether that is news.
    pub(crate) fn was_not_written(&mut self, reason: Option<String>, until: Moment) -> bool {
        if let Write::Due(_, at) = &mut self.write {
            *at = until;
        }
        if reason.is_some() {
            self.refusal = reason;
        }
        !std::mem::replace(&mut self.is_unwritable, true)
    }

    /// It is not tried again until something else is desired, or the device is connected anew. Whether that is news.
    pub(crate) fn is_given_up(&mut self, reason: String) -> bool {
        self.write = Write::Done;
        self.refusal = Some(reason);
        !std::mem::replace(&mut self.is_unwritable, true)
    }

    pub(crate) fn to_read(&self, now: Moment) -> bool {
        self.read_due().is_some_and(|next| next <= now)
    }

    pub(crate) fn set_subscribed(&mut self, is_subscribed: bool) {
        self.is_subscribed = is_subscribed;
    }

    /// Whether the device is asked for it.
    pub(crate) fn is_polled(&self) -> bool {
        self.next_read.is_some() && !self.is_subscribed
    }

    /// It was written, and is read back at once, if it is read.
    pub(crate) fn read_soon(&mut self, now: Moment) {
        self.next_read = self.next_read.map(|next| next.min(now));
    }

    /// It was read, or the try failed. A cycle that was missed is not made up for.
    pub(crate) fn was_collected(&mut self, cycle: Duration, now: Moment) {
        if let Some(next) = &mut self.next_read {
            *next = if *next + cycle > now { *next + cycle } else { now + cycle };
        }
    }

    /// When it was to be read.
    pub(crate) fn read_due(&self) -> Option<Moment> {
        self.next_read.filter(|_| !self.is_subscribed)
    }

    /// There is a value. Whether there was none to be had before.
    pub(crate) fn read(&mut self, value: String, now: Moment, at: SystemTime) -> bool {
        self.reading = Some((self.kept(value, None), at));
        self.good_at = Some(now);
        self.is_away = false;
        self.reread.reset();
        std::mem::take(&mut self.is_unreadable)
    }

    /// There is a value, and the device doubts it. Whether that is news.
    pub(crate) fn read_in_doubt(
        &mut self,
        value: String,
        reason: String,
        now: Moment,
        at: SystemTime,
    ) -> bool {
        let before = match &self.reading {
            Some((Reading::Doubtful(_, doubt), _)) => Some(doubt),
            Some((Reading::Untaken { doubt, .. }, _)) => doubt.as_ref(),
            Some((Reading::Value(_) | Reading::Missing(_), _)) | None => None,
        };
        let is_new = before != Some(&reason);
        self.reading = Some((self.kept(value, Some(reason)), at));
        self.good_at = Some(now);
        self.reread.reset();
        (self.is_unreadable, self.is_away) = (false, false);
        is_new
    }

    /// What is kept of a value, which the device doubts for a reason or does not.
    fn kept(&self, value: String, doubt: Option<String>) -> Reading {
        match (dmi::check_length(&self.name, &value), doubt) {
            (Err(reason), doubt) => Reading::Untaken { reason, doubt },
            (Ok(()), None) => Reading::Value(value),
            (Ok(()), Some(reason)) => Reading::Doubtful(value, reason),
        }
    }

    /// Why edgecore does not take what was read last, if that is news.
    pub(crate) fn untaken_news(&mut self) -> Option<String> {
        let untaken = match &self.reading {
            Some((Reading::Untaken { reason, .. }, _)) if self.is_told => Some(reason.clone()),
            Some(_) | None => None,
        };
        let is_known = std::mem::replace(&mut self.is_untaken, untaken.is_some());
        untaken.filter(|_| !is_known)
    }

    /// The device is not reached: why that is, is all that can be told of what has no value. A value stays.
    pub(crate) fn is_out_of_reach(&mut self, reason: &str, at: SystemTime) {
        self.is_away = self.next_read.is_some();
        let is_said = match &self.reading {
            Some((Reading::Value(_) | Reading::Doubtful(..) | Reading::Untaken { .. }, _)) => true,
            Some((Reading::Missing(before), _)) => before == reason,
            None => false,
        };
        if self.next_read.is_some() && !is_said {
            self.reading = Some((Reading::Missing(reason.to_owned()), at));
        }
    }

    /// The device says that it has no value. Whether that is news.
    pub(crate) fn has_no_value(&mut self, reason: String, at: SystemTime) -> bool {
        let is_new = !matches!(&self.reading, Some((Reading::Missing(_), _)));
        self.reading = Some((Reading::Missing(reason), at));
        self.good_at = None;
        self.is_away = false;
        self.reread.reset();
        is_new
    }

    /// It could not be read: it is asked less and less often, and what was read before counts for two cycles at most. Whether
    /// that is news.
    pub(crate) fn could_not_be_read(
        &mut self,
        reason: String,
        cycle: Duration,
        now: Moment,
        at: SystemTime,
    ) -> bool {
        if let Some(next) = &mut self.next_read {
            *next = now + self.reread.delay();
        }
        self.is_away = false;
        if self.good_at.is_none_or(|good| now.since(good) >= cycle * 2) {
            self.reading = Some((Reading::Missing(reason), at));
            self.good_at = None;
        }
        !std::mem::replace(&mut self.is_unreadable, true)
    }

    /// What is to be reported now.
    pub(crate) fn to_report(&self, now: Moment) -> Option<TwinValue> {
        let twin = self.told()?;
        if self.deferred.as_ref().is_some_and(|(held, until)| held.says_the_same_as(&twin) && now < *until) {
            return None;
        }
        match &self.reported {
            None => Some(twin),
            Some((told, _)) if !told.says_the_same_as(&twin) => Some(twin),
            Some(_) => self.repeat_due(&twin).is_some_and(|due| due <= now).then_some(twin),
        }
    }

    /// When what was told is told again: only if it was read again since, because what is old must not look new. Why there is no value
    /// is true as long as the device is there, however seldom it is asked.
    fn repeat_due(&self, twin: &TwinValue) -> Option<Moment> {
        let holds = matches!(&self.reading, Some((Reading::Missing(_), _))) && !self.is_away;
        let (told, at) = self.reported.as_ref().filter(|(told, _)| holds || told.read_at != twin.read_at)?;
        debug_assert!(told.says_the_same_as(twin));
        Some(*at + self.report_cycle?)
    }

    pub(crate) fn reported(&mut self, twin: TwinValue, now: Moment) {
        self.reported = Some((twin, now));
        self.deferred = None;
    }

    /// edgecore did not take it; it is reported again then, or when it has changed.
    pub(crate) fn was_deferred(&mut self, twin: TwinValue, until: Moment) {
        self.deferred = Some((twin, until));
    }

    /// edgecore refuses it for good. Unless it refuses the reason as well, the reason is told next.
    pub(crate) fn was_rejected(&mut self, twin: TwinValue, reason: &str, now: Moment) {
        if self.value().is_none_or(|value| !value.says_the_same_as(&twin)) {
            return self.reported(twin, now);
        }
        self.rejected = Some((twin, reason.to_owned()));
        self.deferred = None;
    }

    /// edgecore may have forgotten what was reported, or be another release that takes more.
    pub(crate) fn forget_reported(&mut self) {
        self.reported = None;
        self.rejected = None;
        self.deferred = None;
    }

    /// The twin, reported or not. What is not read has one as soon as there is something to say of what is desired.
    pub(crate) fn twin(&self) -> Option<PropertyTwin> {
        Some(self.named_twin(self.value()?))
    }

    /// The twin with these sides.
    pub(crate) fn named_twin(&self, twin: TwinValue) -> PropertyTwin {
        PropertyTwin { property: self.name.clone(), kind: self.kind, twin }
    }

    /// What edgecore is told: the value, or why it does not take that.
    fn told(&self) -> Option<TwinValue> {
        let twin = self.value()?;
        match &self.rejected {
            Some((rejected, reason)) if rejected.says_the_same_as(&twin) => {
                Some(TwinValue { value: String::new(), fault: Some(dmi::untaken(reason)), ..twin })
            }
            _ => Some(twin),
        }
    }

    fn value(&self) -> Option<TwinValue> {
        let (observed, refusal) = (self.observed.clone(), self.refusal.clone());
        let side = match self.reading.clone() {
            Some((Reading::Value(value), at)) => Some((value, None, at)),
            Some((Reading::Doubtful(value, reason), at)) => Some((value, Some(reason), at)),
            Some((Reading::Missing(reason), at)) => Some((String::new(), Some(reason), at)),
            Some((Reading::Untaken { reason, .. }, at)) => {
                // What is only pushed goes to no edgecore.
                Some((String::new(), self.is_told.then(|| dmi::untaken(&reason)), at))
            }
            None if self.refusal.is_some() || self.side_fault.is_some() => {
                Some((String::new(), None, SystemTime::UNIX_EPOCH))
            }
            None => self.reported.as_ref().map(|(told, _)| (String::new(), None, told.read_at)),
        };
        let (value, fault, read_at) = side?;
        let fault = fault.or_else(|| self.side_fault.clone());
        let value = if self.is_told { value } else { String::new() };
        // What is only pushed is told of when something is wrong with it, or was.
        let is_news = self.is_told || fault.is_some() || refusal.is_some() || self.reported.is_some();
        let twin = TwinValue { value, fault, observed, refusal, read_at };
        is_news.then(|| twin.takable(&self.name))
    }

    /// When the device is to be read or written.
    pub(crate) fn due(&self) -> Option<Moment> {
        let write = match &self.write {
            Write::Due(_, at) => Some(*at),
            Write::Done => None,
        };
        [write, self.read_due()].into_iter().flatten().min()
    }

    /// When to report what changed, what did not change, or what edgecore did not take.
    pub(crate) fn report_due(&self, now: Moment) -> Option<Moment> {
        if self.to_report(now).is_some() {
            return Some(now);
        }
        match &self.deferred {
            Some((_, until)) => Some(*until),
            None => self.repeat_due(&self.told()?),
        }
    }
}

#[cfg(test)]
mod tests;
