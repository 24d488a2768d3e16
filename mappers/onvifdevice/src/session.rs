//! A camera that is asked, moved and listened to.

use std::sync::Arc;
use std::time::Duration;

use framework::answers::TURN_WITHIN;
use framework::stream::FrameSource;
use framework::{Fault, Session, Subscription, Value};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::ask::{Ask, Service};
use crate::clock;
use crate::exchange::{Camera, Line, ONCE, READ};
use crate::media::{Pictures, snapshot_uri, stream_uri, without_login};
use crate::monitor::{Monitor, Watched};
use crate::motion::{Axis, Motion};
use crate::soap::short;
use crate::visitor::{Visitor, What};
use crate::xml::{Element, escape};

/// How often a move is told to end, where nobody answers.
const STOPS: u32 = 3;
/// 1 s to take leave.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);

/// A camera, on a connection of its own.
pub struct OnvifSession {
    line: Line,
    monitor: Option<Monitor>,
    /// What was done last, by command.
    done: Vec<(What, Value)>,
    /// Ends the last move.
    ending: Option<Ending>,
}

struct Ending {
    task: JoinHandle<()>,
    profile: String,
}

impl std::fmt::Debug for OnvifSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnvifSession").field("at", &self.line.camera.dialled.at).finish_non_exhaustive()
    }
}

impl OnvifSession {
    /// Sees whether the camera is there, and what its clock says.
    pub(crate) async fn open(camera: Arc<Camera>) -> Result<Self, Fault> {
        let mut line = Line::to(camera);
        match line.clock().await {
            // Whatever it answers, it is there.
            Ok(_) | Err(Fault::Device(_)) => {}
            Err(Fault::Silent(reason) | Fault::Link(reason)) => return Err(Fault::NotSent(reason)),
            Err(fault) => return Err(fault),
        }
        Ok(OnvifSession { line, monitor: None, done: Vec::new(), ending: None })
    }

    async fn asked(&mut self, ask: &Ask, profile: Option<&str>) -> Result<Element, Fault> {
        let ask = match ask.is_of_profile() {
            true => ask.for_profile(&self.line.profile(profile, ask.service == Service::Ptz).await?),
            false => ask.clone(),
        };
        let asked = self.line.call(&ask, READ).await;
        Ok(asked.inspect_err(|_| self.line.camera.forget_profiles())?)
    }

    /// Those of these that one request brings, the first among them.
    async fn read_together(
        &mut self,
        visitors: &[&Visitor],
        first: &Visitor,
    ) -> Vec<(usize, Result<Value, Fault>)> {
        let all = visitors.iter().enumerate();
        match &first.what {
            What::Asked { ask, .. } => {
                let answer = self.asked(ask, first.profile.as_deref()).await;
                let is_same = |visitor: &Visitor| {
                    matches!(&visitor.what, What::Asked { ask: of, .. } if of == ask)
                        && (visitor.profile == first.profile || !ask.is_of_profile())
                };
                let same = all.filter(|(_, visitor)| is_same(visitor));
                match answer {
                    Ok(answer) => same.map(|(place, visitor)| (place, within(&answer, visitor))).collect(),
                    Err(fault) => vec![(0, Err(fault))],
                }
            }
            What::Clock | What::Move(_) | What::Stop | What::Preset | What::Reboot => {
                let mut clock = match self.line.clock().await {
                    Ok(clock) => clock,
                    Err(fault) => return vec![(0, Err(fault))],
                };
                // Some tell it to those alone who are known.
                if clock.is_none() && first.what == What::Clock {
                    match self.line.call(&Ask::of(Service::Device, "GetSystemDateAndTime"), READ).await {
                        Ok(answer) => clock = clock::of_answer(&answer),
                        Err(failure) => return vec![(0, Err(failure.fault))],
                    }
                }
                let clock =
                    || clock.ok_or_else(|| Fault::NoValue("the camera does not tell its time".to_owned()));
                let of = |visitor: &Visitor| match &visitor.what {
                    What::Clock => {
                        Some(clock().and_then(|time| visitor.payload.value(time.to_string().as_bytes())))
                    }
                    what if what.is_command() => Some(self.last(what)),
                    _ => None,
                };
                all.filter_map(|(place, visitor)| Some((place, of(visitor)?))).collect()
            }
            What::StreamUri | What::SnapshotUri => {
                let profile = first.profile.as_deref();
                let found = match first.what {
                    What::StreamUri => stream_uri(&mut self.line, profile).await,
                    _ => snapshot_uri(&mut self.line, profile).await.map(|address| without_login(&address)),
                };
                vec![(0, found.and_then(|address| first.payload.value(address.as_bytes())))]
            }
            What::Event(_) => {
                let of = |visitor: &Visitor| match &visitor.what {
                    What::Event(topic) => Some(match &self.monitor {
                        Some(monitor) => monitor.last(topic),
                        None => Err(Fault::NoValue("the camera is not listened to".to_owned())),
                    }),
                    _ => None,
                };
                all.filter_map(|(place, visitor)| Some((place, of(visitor)?))).collect()
            }
            What::Pictures => vec![(0, Err(Fault::NoValue("pictures are saved, and not read".to_owned())))],
        }
    }

    /// What was done last.
    fn last(&self, what: &What) -> Result<Value, Fault> {
        let found = self.done.iter().find(|(of, _)| of == what).map(|(_, value)| value.clone());
        found.ok_or_else(|| {
            Fault::NoValue("nothing of this was done since the connection was made".to_owned())
        })
    }

    async fn do_once(&mut self, visitor: &Visitor, value: &Value) -> Result<(), Fault> {
        match &visitor.what {
            What::Move(motion) => self.go(*motion, visitor.profile.as_deref(), value).await,
            What::Stop => {
                let profile = self.line.profile(visitor.profile.as_deref(), true).await?;
                self.line.call(&stop(&profile), ONCE).await?;
                if let Some(ending) = self.ending.take() {
                    ending.task.abort();
                }
                Ok(())
            }
            What::Preset => self.go_to_preset(visitor.profile.as_deref(), value).await,
            What::Reboot => {
                Ok(self.line.call(&Ask::of(Service::Device, "SystemReboot"), ONCE).await.map(drop)?)
            }
            _ => Err(Fault::Unfit("it is read, and not written".to_owned())),
        }
    }

    async fn go(&mut self, motion: Motion, profile: Option<&str>, value: &Value) -> Result<(), Fault> {
        // What is no move is refused before anything is asked for.
        motion.ask(value, 0.0, "").map_err(Fault::Unfit)?;
        let profile = self.line.profile(profile, true).await?;
        let kept = match motion.keeps() {
            Some(axis) => self.position(axis, &profile).await?,
            None => 0.0,
        };
        let ask = motion.ask(value, kept, &profile).map_err(Fault::Unfit)?;
        let moved = self.line.call(&ask, ONCE).await;
        let may_go_on = !matches!(&moved, Err(failure) if matches!(failure.fault, Fault::NotSent(_) | Fault::Device(_) | Fault::Unfit(_)));
        if may_go_on && let Some(former) = self.ending.take() {
            former.task.abort();
        }
        if let Some(lasts) = motion.lasts().filter(|_| may_go_on) {
            let camera = Arc::clone(&self.line.camera);
            let task = tokio::spawn(end_after(camera, lasts, profile.clone()));
            self.ending = Some(Ending { task, profile });
        }
        Ok(moved.map(drop)?)
    }

    async fn position(&mut self, axis: Axis, profile: &str) -> Result<f64, Fault> {
        let ask = Ask::of_profile(Service::Ptz, "GetStatus").for_profile(profile);
        let answer = self.line.call(&ask, READ).await?;
        let place = answer.at("PTZStatus/Position/PanTilt");
        let number = place.and_then(|place| place.attribute(if axis == Axis::Pan { "x" } else { "y" }));
        let number = number.and_then(|number| number.trim().parse::<f64>().ok());
        number.filter(|number| (-1.0..=1.0).contains(number)).ok_or_else(|| {
            Fault::Device(
                "the camera does not say where it is, and moves both axes at once; make the property a STRING without `axis`"
                    .to_owned(),
            )
        })
    }

    async fn go_to_preset(&mut self, profile: Option<&str>, value: &Value) -> Result<(), Fault> {
        let wanted = value.to_string();
        let profile = self.line.profile(profile, true).await?;
        let ask = Ask::of_profile(Service::Ptz, "GetPresets").for_profile(&profile);
        let token = match self.line.call(&ask, READ).await {
            Ok(answer) => preset(&answer, &wanted).map_err(Fault::Unfit)?,
            Err(failure) if failure.fault.is_unanswered() => return Err(failure.fault),
            // One that does not tell its presets may have them.
            Err(_) => wanted,
        };
        let inside = format!(
            "<tptz:ProfileToken>{}</tptz:ProfileToken><tptz:PresetToken>{}</tptz:PresetToken>",
            escape(&profile),
            escape(&token)
        );
        Ok(self.line.call(&Ask::with(Service::Ptz, "GotoPreset", &inside), ONCE).await.map(drop)?)
    }
}

/// Tells a camera to stop after a while: the time in the request itself is heeded by some alone.
async fn end_after(camera: Arc<Camera>, lasts: Duration, profile: String) {
    sleep(lasts).await;
    let mut line = Line::to(camera);
    for _ in 0..STOPS {
        match line.call(&stop(&profile), ONCE).await {
            Err(failure) if failure.fault.is_unanswered() => {
                tracing::warn!(reason = %failure.fault, "a camera was not told to stop, and may go on moving");
            }
            Err(failure) => {
                tracing::warn!(reason = %failure.fault, "a camera refuses to stop");
                return;
            }
            Ok(_) => return,
        }
        sleep(LEAVE_WITHIN).await;
    }
}

fn stop(profile: &str) -> Ask {
    let inside = format!(
        "<tptz:ProfileToken>{}</tptz:ProfileToken><tptz:PanTilt>true</tptz:PanTilt><tptz:Zoom>true</tptz:Zoom>",
        escape(profile)
    );
    Ask::with(Service::Ptz, "Stop", &inside)
}

/// The token of a preset, by its token or its name.
fn preset(answer: &Element, wanted: &str) -> Result<String, String> {
    let all = || {
        answer
            .all("Preset")
            .filter_map(|one| Some((one.attribute("token")?, one.text_at("Name").unwrap_or_default())))
    };
    let found = all().find(|(token, _)| *token == wanted).or_else(|| all().find(|(_, name)| *name == wanted));
    found.map(|(token, _)| token.to_owned()).ok_or_else(|| {
        let names: Vec<String> =
            all().take(16).map(|(token, name)| format!("{} ({})", short(token), short(name))).collect();
        format!("the camera has no preset `{}`; there are {}", short(wanted), names.join(", "))
    })
}

fn within(answer: &Element, visitor: &Visitor) -> Result<Value, Fault> {
    let What::Asked { at, .. } = &visitor.what else {
        return Err(Fault::NoValue("nothing was asked for".to_owned()));
    };
    match at.find(answer) {
        None => Err(Fault::NoValue(format!("there is no {at} in the answer"))),
        Some("") => Err(Fault::NoValue(format!("{at} in the answer is empty"))),
        Some(text) => visitor.payload.value(text.as_bytes()),
    }
}

impl Session for OnvifSession {
    type Visitor = Visitor;

    /// A request may need the services, the profiles and other logins first; each has its own time-out.
    fn deadline(&self) -> Duration {
        self.line.camera.address.answer * 6 + TURN_WITHIN
    }

    async fn read(&mut self, visitor: &Visitor) -> Result<Value, Fault> {
        let read = self.read_together(&[visitor], visitor).await;
        read.into_iter()
            .next()
            .map_or_else(|| Err(Fault::NoValue("nothing was asked for".to_owned())), |(_, one)| one)
    }

    async fn read_many(&mut self, visitors: &[&Visitor]) -> Vec<(usize, Result<Value, Fault>)> {
        match visitors.first() {
            Some(first) => self.read_together(visitors, first).await,
            None => Vec::new(),
        }
    }

    async fn subscribe(&mut self, visitors: &[&Visitor], values: Subscription) -> Vec<usize> {
        let watched: Vec<Watched> = visitors
            .iter()
            .enumerate()
            .filter_map(|(place, visitor)| match &visitor.what {
                What::Event(topic) => Some(Watched {
                    place,
                    topic: topic.clone(),
                    payload: Arc::clone(&visitor.payload),
                    told_every: visitor.told_every,
                }),
                _ => None,
            })
            .collect();
        let former = self.monitor.take();
        let places: Vec<usize> = watched.iter().map(|one| one.place).collect();
        if places.is_empty() {
            if let Some(former) = former {
                former.leave().await;
            }
            return places;
        }
        self.monitor = Some(Monitor::start(&self.line.camera, watched, values, former));
        places
    }

    fn frames(&mut self, visitor: &Visitor) -> Result<Box<dyn FrameSource>, Fault> {
        let line = Line::to(Arc::clone(&self.line.camera));
        Ok(Box::new(Pictures::new(line, visitor.profile.clone())))
    }

    async fn write(&mut self, visitor: &Visitor, value: &Value) -> Result<(), Fault> {
        let What::Asked { write: Some(template), .. } = &visitor.what else {
            self.do_once(visitor, value).await?;
            self.done.retain(|(of, _)| *of != visitor.what);
            self.done.push((visitor.what.clone(), value.clone()));
            return Ok(());
        };
        let ask = template.with(&visitor.payload.text(value)).map_err(Fault::Unfit)?;
        let ask = match ask.is_of_profile() {
            true => {
                let profile =
                    self.line.profile(visitor.profile.as_deref(), ask.service == Service::Ptz).await?;
                ask.for_profile(&profile)
            }
            false => ask,
        };
        Ok(self.line.call(&ask, ONCE).await.map(drop)?)
    }

    async fn close(mut self) {
        let stopping = async {
            let Some(ending) = self.ending.take().filter(|ending| !ending.task.is_finished()) else { return };
            ending.task.abort();
            if timeout(LEAVE_WITHIN, self.line.call(&stop(&ending.profile), ONCE)).await.is_err() {
                tracing::warn!("a camera was not told to stop, and may go on moving");
            }
        };
        stopping.await;
        if let Some(monitor) = self.monitor.take() {
            monitor.leave().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::parse;

    #[test]
    fn a_preset_is_meant_by_its_token_or_its_name() {
        let answer = "<r><Preset token='1'><Name>door</Name></Preset><Preset token='door'><Name>x</Name></Preset>\
            <Preset token='3'><Name>gate</Name></Preset><Preset/></r>";
        let answer = parse(answer.as_bytes()).unwrap();
        assert_eq!(preset(&answer, "door").as_deref(), Ok("door"), "a token before a name");
        assert_eq!(preset(&answer, "gate").as_deref(), Ok("3"));
        assert!(preset(&answer, "roof").unwrap_err().contains("1 (door), door (x), 3 (gate)"));
    }
}
