//! The streams of a device: which are recorded, and when that begins and ends.

use beehive::{Context, Env};

use crate::device::actor::{Device, DeviceMsg};
use crate::plan::DevicePlan;
use crate::protocol::{Protocol, Session as _};
use crate::stream::Recorder;
use crate::subscription::Subscription;

impl<P: Protocol> Device<P> {
    /// Has the session's streams recorded, in place of those before. Their files come as what a device sends by itself.
    pub(super) fn prepare_recorders(&mut self, plan: &DevicePlan<P>, values: &Subscription, env: &Env) {
        self.recorders.end();
        for (at, planned) in plan.properties.iter().enumerate() {
            let (Some(stream), Some(session)) = (&planned.stream, &mut self.session) else { continue };
            let place = self.subscribed.len();
            self.subscribed.push(at);
            if let Some(property) = self.properties.get_mut(at) {
                property.set_subscribed(true);
            }
            match session.frames(&planned.visitor) {
                Ok(source) => {
                    let root = self.recorders.root();
                    self.recorders.add(Recorder {
                        source,
                        plan: stream.clone(),
                        root,
                        device: self.instance.name().clone(),
                        property: planned.name.clone(),
                        values: values.clone(),
                        place,
                        env: env.clone(),
                        saved: None,
                    });
                }
                Err(fault) => values.push(place, Err(fault)),
            }
        }
    }

    /// Starts what is ready, and ends what has lost its session.
    pub(super) fn follow_recorders(&mut self, cx: &Context<DeviceMsg>) {
        if self.session.is_none() {
            return self.recorders.end();
        }
        self.recorders.start(|recorder| cx.spawn(recorder.run()));
    }
}
