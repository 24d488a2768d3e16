//! Where the readings of one device go: from its actor into the outboxes of the targets.

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use apimachinery::NamespacedName;
use beehive::Moment;
use tokio::sync::Notify;

use crate::push::outbox::Outbox;
use crate::push::plan::{PushPlan, Route};
use crate::push::pushers::{Pushers, too_many};
use crate::push::reading::Reading;
use crate::value::Value;

/// Where the readings of one device go, by the places of its properties.
#[derive(Default)]
pub(crate) struct Outlets {
    bell: Rc<Notify>,
    of: Vec<PropertyOutlets>,
}

#[derive(Default)]
struct PropertyOutlets {
    to: Vec<(Rc<Outbox>, Rc<Route>)>,
    /// What cannot be done.
    refused: Vec<String>,
    /// None: each reading goes.
    cycle: Option<Duration>,
    /// No reading before then.
    next: Moment,
}

impl Outlets {
    /// Goes by these plans from now on.
    pub(crate) fn follow<'a>(
        &mut self,
        device: &NamespacedName,
        plans: impl Iterator<Item = &'a PushPlan>,
        pushers: &Pushers,
    ) {
        let outlets = |plan: &PushPlan| {
            let mut outlets =
                PropertyOutlets { refused: plan.refused.clone(), cycle: plan.cycle, ..Default::default() };
            for way in &plan.ways {
                match pushers.outbox(&way.target) {
                    Some(outbox) => {
                        outbox.ring(device, &self.bell);
                        outlets.to.push((outbox, Rc::new(way.route.clone())));
                    }
                    None => outlets.refused.push(format!("{}: {}", way.target.shown(), too_many())),
                }
            }
            outlets
        };
        self.of = plans.map(outlets).collect();
    }

    /// Rung when [`Outlets::fault`] may say something else.
    pub(crate) fn bell(&self) -> Rc<Notify> {
        Rc::clone(&self.bell)
    }

    /// A property was read. How many older readings were dropped for it.
    pub(crate) fn was_read(
        &mut self,
        at: usize,
        (device, property): (&NamespacedName, &str),
        value: &Value,
        (now, wall): (Moment, SystemTime),
    ) -> usize {
        let Some(outlets) = self.of.get_mut(at).filter(|outlets| !outlets.to.is_empty()) else { return 0 };
        if let Some(cycle) = outlets.cycle {
            // A reading comes a little sooner or later than its cycle says.
            if now + cycle / 8 < outlets.next {
                return 0;
            }
            let next = outlets.next + cycle;
            outlets.next = if next > now { next } else { now + cycle };
        }
        let reading = || Reading {
            device: device.clone(),
            property: property.to_owned(),
            value: value.clone(),
            at: wall,
        };
        outlets.to.iter().map(|(outbox, route)| outbox.put(route, reading())).sum()
    }

    /// What is wrong with where a property's readings go.
    pub(crate) fn fault(&self, at: usize, device: &NamespacedName, property: &str) -> Option<String> {
        let outlets = self.of.get(at)?;
        let faults = outlets.to.iter().filter_map(|(outbox, _)| outbox.fault(device, property));
        let all: Vec<String> = outlets.refused.iter().cloned().chain(faults).collect();
        (!all.is_empty()).then(|| all.join(". "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::plan::{push_plan, targets};
    use crate::value::Kind;
    use dmi::v1beta1::{Device, DeviceProperty, DeviceSpec, PushMethod, PushMethodHttp, PushMethodMqtt};
    use std::time::UNIX_EPOCH;

    fn outlets(cycle: Option<Duration>) -> (Outlets, Pushers, NamespacedName, PushPlan) {
        let http = PushMethodHttp { hostname: "http://h".to_owned(), ..Default::default() };
        let method =
            PushMethod { http: Some(http), mqtt: Some(PushMethodMqtt::default()), ..Default::default() };
        let property = DeviceProperty { push_method: Some(method), ..Default::default() };
        let plan = push_plan(&property, Kind::Int, cycle, &mut Vec::new());
        let (pushers, pump) = (Pushers::default(), NamespacedName::new("default", "pump"));
        let spec = DeviceSpec { properties: vec![property], ..Default::default() };
        pushers.follow(&pump, targets(&Device { spec: Some(spec), ..Default::default() }));
        let mut outlets = Outlets::default();
        outlets.follow(&pump, std::iter::once(&plan), &pushers);
        (outlets, pushers, pump, plan)
    }

    #[test]
    fn readings_go_in_the_cycle_of_reports_or_each_of_them() {
        for (cycle, wanted) in [(None, 30), (Some(100), 8), (Some(1000), 1), (Some(1), 30)] {
            let (mut outlets, pushers, pump, plan) = outlets(cycle.map(Duration::from_millis));
            for step in 0..30 {
                // Read every 25 ms, a little late at times.
                let now = Moment(Duration::from_millis(1000 + step * 25 + step % 3));
                outlets.was_read(0, (&pump, "level"), &Value::Int(1), (now, UNIX_EPOCH));
            }
            let outbox = pushers.outbox(&plan.ways[0].target).unwrap();
            assert_eq!(outbox.len(), wanted, "{cycle:?}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_said_beside_what_goes_wrong() {
        let (outlets, pushers, pump, plan) = outlets(None);
        let refused = outlets.fault(0, &pump, "level").unwrap();
        assert!(refused.contains("pushMethod.mqtt: `address` is missing"), "{refused}");
        pushers.outbox(&plan.ways[0].target).unwrap().is_away(Some("gone".to_owned()));
        let both = outlets.fault(0, &pump, "level").unwrap();
        assert!(both.contains("`address`") && both.contains("http://h:80/: gone"), "{both}");
        assert_eq!(outlets.fault(1, &pump, "other"), None);
    }
}
