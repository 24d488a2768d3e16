//! Readings that are pushed to targets of each kind: as KubeEdge's framework writes them, while a target is away, and across its restart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../edgecore/mod.rs"]
mod edgecore;
#[path = "../mosquitto/mod.rs"]
mod mosquitto;
#[path = "../python/mod.rs"]
mod python;
#[path = "../mapper/shelf.rs"]
mod shelf;

mod anomaly;
mod http;
mod influxdb2;
mod mqtt;
mod mysql;
mod otel;
mod pushing;
mod redis;
mod tdengine;
