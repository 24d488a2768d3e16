//! The client of a target, whichever it is.

use std::rc::Rc;

use beehive::Env;

use crate::push::credentials::Credentials;
use crate::push::http::HttpClient;
use crate::push::influxdb2::{InfluxClient, Point};
use crate::push::mqtt::{MqttClient, Topic};
use crate::push::mysql::MysqlClient;
use crate::push::otel::OtelClient;
use crate::push::parcel::Parcel;
use crate::push::plan::{Route, Target};
use crate::push::reading::Reading;
use crate::push::redis::RedisClient;
use crate::push::stream::Tls;
use crate::push::tdengine::TdengineClient;
use crate::push::trouble::Sent;

/// A client of a target. It connects when there is something to send, and again after a failure.
pub(crate) enum Client {
    Http(HttpClient),
    Mqtt(MqttClient),
    Otel(OtelClient),
    Influx(InfluxClient),
    Redis(RedisClient),
    Tdengine(TdengineClient),
    Mysql(MysqlClient),
}

impl Client {
    pub(crate) fn to(target: &Target, tls: Tls, credentials: &Credentials) -> Self {
        match target {
            Target::Http(target) => Client::Http(HttpClient::to(target, tls)),
            Target::Mqtt(target) => Client::Mqtt(MqttClient::to(target, tls)),
            Target::Otel(target) => Client::Otel(OtelClient::to(target, tls)),
            Target::Influx(target) => Client::Influx(InfluxClient::to(target, tls, credentials)),
            Target::Redis(target) => Client::Redis(RedisClient::to(target, tls, credentials)),
            Target::Tdengine(target) => Client::Tdengine(TdengineClient::to(target, tls, credentials)),
            Target::Mysql(target) => Client::Mysql(MysqlClient::to(target, credentials)),
        }
    }

    /// Sends the first of these, in order: at least one, and as many more as go with it.
    pub(crate) async fn send(&mut self, batch: &[Rc<Parcel>], env: &Env) -> Sent {
        let readings = || -> Vec<&Reading> { batch.iter().map(|parcel| &parcel.reading).collect() };
        match self {
            Client::Http(client) => match batch.first() {
                Some(first) => Sent::all(1, client.send(&first.reading, env).await),
                None => Sent { taken: 0, trouble: None },
            },
            Client::Mqtt(client) => {
                client.send(&batch.iter().filter_map(topic).collect::<Vec<_>>(), env).await
            }
            Client::Otel(client) => client.send(&readings(), env).await,
            Client::Influx(client) => {
                client.send(&batch.iter().filter_map(point).collect::<Vec<_>>(), env).await
            }
            Client::Redis(client) => client.send(&readings(), env).await,
            Client::Tdengine(client) => client.send(&readings(), env).await,
            Client::Mysql(client) => client.send(&readings(), env).await,
        }
    }
}

/// A target has routes of its kind alone.
fn topic(parcel: &Rc<Parcel>) -> Option<(&Topic, &Reading)> {
    match &*parcel.route {
        Route::Topic(topic) => Some((topic, &parcel.reading)),
        Route::Plain | Route::Point(_) => None,
    }
}

fn point(parcel: &Rc<Parcel>) -> Option<(&Point, &Reading)> {
    match &*parcel.route {
        Route::Point(point) => Some((point, &parcel.reading)),
        Route::Plain | Route::Topic(_) => None,
    }
}
