//! What of a property's readings goes where: `pushMethod`, parsed once. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use dmi::v1beta1::{DbMethod, Device, DeviceProperty, PushMethod};
use serde::{Deserialize, Serialize};

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

/// Where readings go. What two properties share is one target, with one connection and one order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    method.is_some_and(|method| !ways(method, None, &mut Vec::new()).is_empty())
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

#[cfg(test)]
mod tests {
    use dmi::v1beta1::{
        DbMethodInfluxdb2, DbMethodMySql, DbMethodRedis, DbMethodTdEngine, Influxdb2ClientConfig,
        Influxdb2DataConfig, MySqlClientConfig, PushMethodHttp, PushMethodMqtt, PushMethodOtel,
        RedisClientConfig, TdEngineClientConfig,
    };
    use serde_json::Value;

    use super::*;

    /// As edgecore sends it.
    fn sent(given: &Value) -> PushMethod {
        let text = |of: &Value, key: &str| of[key].as_str().unwrap_or_default().to_owned();
        let whole = |of: &Value, key: &str| of[key].as_i64().unwrap_or_default();
        let database = |db: &Value| DbMethod {
            influxdb2: db.get("influxdb2").map(|influx| {
                let (client, data) = (&influx["influxdb2ClientConfig"], &influx["influxdb2DataConfig"]);
                let tag =
                    data["tag"].as_object().unwrap().keys().map(|key| (key.clone(), text(&data["tag"], key)));
                DbMethodInfluxdb2 {
                    influxdb2_client_config: Some(Influxdb2ClientConfig {
                        url: text(client, "url"),
                        org: text(client, "org"),
                        bucket: text(client, "bucket"),
                    }),
                    influxdb2_data_config: Some(Influxdb2DataConfig {
                        measurement: text(data, "measurement"),
                        tag: tag.collect(),
                        field_key: text(data, "fieldKey"),
                    }),
                }
            }),
            redis: db.get("redis").map(|redis| DbMethodRedis {
                redis_client_config: Some(RedisClientConfig {
                    addr: text(&redis["redisClientConfig"], "addr"),
                    ..Default::default()
                }),
            }),
            tdengine: db.get("TDEngine").map(|engine| DbMethodTdEngine {
                td_engine_client_config: Some(TdEngineClientConfig {
                    addr: text(&engine["TDEngineClientConfig"], "addr"),
                    dbname: text(&engine["TDEngineClientConfig"], "dbName"),
                }),
            }),
            mysql: db.get("mysql").map(|mysql| DbMethodMySql {
                mysql_client_config: Some(MySqlClientConfig {
                    addr: text(&mysql["mysqlClientConfig"], "addr"),
                    database: text(&mysql["mysqlClientConfig"], "database"),
                    user_name: text(&mysql["mysqlClientConfig"], "userName"),
                }),
            }),
        };
        PushMethod {
            http: given.get("http").map(|http| PushMethodHttp {
                hostname: text(http, "hostName"),
                port: whole(http, "port"),
                requestpath: text(http, "requestPath"),
                timeout: whole(http, "timeout"),
            }),
            mqtt: given.get("mqtt").map(|mqtt| PushMethodMqtt {
                address: text(mqtt, "address"),
                topic: text(mqtt, "topic"),
                qos: i32::try_from(whole(mqtt, "qos")).unwrap(),
                retained: mqtt["retained"].as_bool().unwrap(),
            }),
            otel: given.get("otel").map(|otel| PushMethodOtel { endpoint_url: text(otel, "endpointURL") }),
            db_method: given.get("dbMethod").map(database),
            anomaly_detection: None,
        }
    }

    /// That each key of them is one of a Device's is seen where Devices are.
    #[test]
    fn every_way_in_the_guide_is_one_that_readings_go() {
        let guide = include_str!("../../../README.md");
        let blocks = guide.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        let mut shown = Vec::new();
        for document in blocks.flat_map(|block| block.split("\n---\n")) {
            let document: Value = serde_saphyr::from_str(document).unwrap();
            let method =
                document.get("pushMethod").unwrap_or_else(|| &document["properties"][0]["pushMethod"]);
            let (push_method, mut said) = (Some(sent(method)), Vec::new());
            let property = DeviceProperty { push_method, ..Default::default() };
            let plan = push_plan(&property, Kind::Int, None, &mut said);
            assert_eq!((&plan.refused, &said), (&Vec::new(), &Vec::new()));
            shown.extend(plan.ways.iter().map(|way| way.target.shown()));
        }
        assert_eq!(
            shown,
            [
                "pushMethod.http to http://192.0.2.30:8080/readings",
                "pushMethod.mqtt to tcp://192.0.2.31:1883",
                "pushMethod.otel to http://192.0.2.32:4318/v1/metrics",
                "pushMethod.dbMethod.influxdb2 to http://192.0.2.33:8086 bucket readings",
                "pushMethod.dbMethod.redis to 192.0.2.34:6379 database 0",
                "pushMethod.dbMethod.TDEngine to 192.0.2.35:6041 database plant",
                "pushMethod.dbMethod.mysql to 192.0.2.36:3306 database plant",
            ]
        );
    }
}
