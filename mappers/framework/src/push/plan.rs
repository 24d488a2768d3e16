//! What of a property's readings goes where: `pushMethod`, parsed once. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use dmi::v1beta1::{DbMethod, Device, DeviceProperty, PushMethod};

use crate::push::http::HttpTarget;
use crate::push::influxdb2::{InfluxTarget, Point};
use crate::push::mqtt::{MqttTarget, Topic};
use crate::push::mysql::MysqlTarget;
use crate::push::otel::OtelTarget;
use crate::push::redis::RedisTarget;
use crate::push::tdengine::TdengineTarget;
use crate::value::Kind;

/// 64 KiB: a longer value goes to no target.
pub(crate) const VALUE_MAX: usize = 64 << 10;

/// What is no way of readings, and not served.
const ANOMALY: &str = "anomalyDetection";

/// Where readings go. What two properties share is one target, with one connection and one order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    Http(HttpTarget),
    Mqtt(MqttTarget),
    Otel(OtelTarget),
    Influx(InfluxTarget),
    Redis(RedisTarget),
    Tdengine(TdengineTarget),
    Mysql(MysqlTarget),
}

impl Target {
    /// How it is named to people: without what logs in.
    pub(crate) fn shown(&self) -> String {
        match self {
            Target::Http(target) => format!("pushMethod.http to {}", target.shown()),
            Target::Mqtt(target) => format!("pushMethod.mqtt to {}", target.shown()),
            Target::Otel(target) => format!("pushMethod.otel to {}", target.shown()),
            Target::Influx(target) => format!("pushMethod.dbMethod.influxdb2 to {}", target.shown()),
            Target::Redis(target) => format!("pushMethod.dbMethod.redis to {}", target.shown()),
            Target::Tdengine(target) => format!("pushMethod.dbMethod.TDEngine to {}", target.shown()),
            Target::Mysql(target) => format!("pushMethod.dbMethod.mysql to {}", target.shown()),
        }
    }
}

/// How a property goes to its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// As every other one.
    Plain,
    Topic(Topic),
    Point(Point),
}

/// One way of a property's readings.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct PushWay {
    pub(crate) target: Target,
    pub(crate) route: Route,
}

/// Where a property's readings go.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct PushPlan {
    pub(crate) ways: Vec<PushWay>,
    /// What is asked for and cannot be done, and why.
    pub(crate) refused: Vec<String>,
    /// How often a reading goes. None: each one.
    pub(crate) cycle: Option<Duration>,
}

impl std::fmt::Debug for PushPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ways = self.ways.iter().map(|way| way.target.shown());
        f.debug_list().entries(ways).entries(&self.refused).finish()
    }
}

/// Understands where a property's readings go, and how often: `reportCycle` is KubeEdge's cycle of pushes.
pub(crate) fn push_plan(
    property: &DeviceProperty,
    kind: Kind,
    cycle: Option<Duration>,
    warnings: &mut Vec<String>,
) -> PushPlan {
    let mut plan = PushPlan { cycle, ..PushPlan::default() };
    let Some(method) = &property.push_method else { return plan };
    let mut said = Vec::new();
    for (name, way) in ways(method, Some(kind), &mut said) {
        match way {
            Ok(way) => plan.ways.push(way),
            Err(refusal) => plan.refused.push(format!("pushMethod.{name}: {refusal}")),
        }
    }
    let of_it = said.into_iter().chain(plan.refused.clone());
    warnings.extend(of_it.map(|what| format!("property `{}`: {what}", property.name)));
    plan
}

/// Whether readings of a property go somewhere. KubeEdge's edgecore sends an empty `pushMethod` along with every property.
pub(crate) fn is_pushed(property: &DeviceProperty) -> bool {
    let method = property.push_method.as_ref();
    method.is_some_and(|method| ways(method, None, &mut Vec::new()).iter().any(|(name, _)| *name != ANOMALY))
}

/// The targets of a device.
pub(crate) fn targets(device: &Device) -> BTreeSet<Target> {
    let methods =
        device.spec.iter().flat_map(|spec| &spec.properties).flat_map(|property| &property.push_method);
    let ways = methods.flat_map(|method| ways(method, None, &mut Vec::new()));
    ways.filter_map(|(_, way)| way.ok()).map(|way| way.target).collect()
}

type NamedWay = (&'static str, Result<PushWay, String>);

fn ways(method: &PushMethod, kind: Option<Kind>, warnings: &mut Vec<String>) -> Vec<NamedWay> {
    let mut ways: Vec<NamedWay> = Vec::new();
    let plain = |target| PushWay { target, route: Route::Plain };
    if let Some(http) = &method.http {
        ways.push(("http", HttpTarget::read(http, warnings).map(|target| plain(Target::Http(target)))));
    }
    if let Some(mqtt) = &method.mqtt {
        let way = |(target, topic)| PushWay { target: Target::Mqtt(target), route: Route::Topic(topic) };
        ways.push(("mqtt", MqttTarget::read(mqtt).map(way)));
    }
    if let Some(otel) = &method.otel {
        ways.push(("otel", OtelTarget::read(otel, kind).map(|target| plain(Target::Otel(target)))));
    }
    if let Some(database) = &method.db_method {
        ways.extend(of_database(database, warnings));
    }
    if method.anomaly_detection.is_some() {
        ways.push((ANOMALY, Err("it is not served".to_owned())));
    }
    ways
}

fn of_database(database: &DbMethod, warnings: &mut Vec<String>) -> Vec<NamedWay> {
    let mut ways: Vec<NamedWay> = Vec::new();
    let plain = |target| PushWay { target, route: Route::Plain };
    if let Some(influx) = &database.influxdb2 {
        let way = |(target, point)| PushWay { target: Target::Influx(target), route: Route::Point(point) };
        ways.push(("dbMethod.influxdb2", InfluxTarget::read(influx).map(way)));
    }
    if let Some(redis) = &database.redis {
        let target = RedisTarget::read(redis, warnings);
        ways.push(("dbMethod.redis", target.map(|target| plain(Target::Redis(target)))));
    }
    if let Some(tdengine) = &database.tdengine {
        let target = TdengineTarget::read(tdengine);
        ways.push(("dbMethod.TDEngine", target.map(|target| plain(Target::Tdengine(target)))));
    }
    if let Some(mysql) = &database.mysql {
        let target = MysqlTarget::read(mysql);
        ways.push(("dbMethod.mysql", target.map(|target| plain(Target::Mysql(target)))));
    }
    ways
}
