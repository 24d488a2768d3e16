//! `pushMethod.otel`: each reading is a point of a gauge, over OTLP/HTTP with protobuf. The gauge is called as the property, its
//! resource's `device.id` is `NAMESPACE/NAME`, as KubeEdge's framework has them.

use std::time::Duration;

use beehive::Env;
use bytes::Bytes;
use dmi::v1beta1::PushMethodOtel;
use otlp::{Attribute, PROTOBUF, Resource, Response, Scope};
use prost::Message as _;

use crate::push::endpoint::Endpoint;
use crate::push::post::Posts;
use crate::push::reading::Reading;
use crate::push::stream::Tls;
use crate::push::trouble::{Sent, Trouble};
use crate::value::{Kind, Value};

/// 10 s for an answer: the standard's.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Where metrics go unless the URL says otherwise.
const METRICS: &str = "/v1/metrics";
const DEVICE: &str = "device.id";
const SCOPE: &str = "kubehive.mapper";

/// A collector.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct OtelTarget {
    endpoint: Endpoint,
    path: String,
}

impl OtelTarget {
    /// From `pushMethod.otel`. A `kind` that is unknown is judged later.
    pub(crate) fn read(otel: &PushMethodOtel, kind: Option<Kind>) -> Result<Self, String> {
        if kind == Some(Kind::Text) {
            return Err("a gauge holds numbers, and the property is a STRING".to_owned());
        }
        let (endpoint, path) = Endpoint::http("`endpointURL`", otel.endpoint_url.trim())?;
        let path = if path == "/" { METRICS.to_owned() } else { path };
        Ok(OtelTarget { endpoint, path })
    }

    /// How it is named to people.
    pub(crate) fn shown(&self) -> String {
        let scheme = if self.endpoint.is_tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.endpoint, self.path.split('?').next().unwrap_or_default())
    }
}

/// Exports points.
pub(crate) struct OtelClient {
    path: String,
    posts: Posts,
    /// The collector has rejected some of several: the next ones go one by one, so that it is known which.
    is_one_by_one: bool,
}

impl OtelClient {
    pub(crate) fn to(target: &OtelTarget, tls: Tls) -> Self {
        let posts = Posts::to(target.endpoint.clone(), tls, ANSWER_WITHIN);
        OtelClient { path: target.path.clone(), posts, is_one_by_one: false }
    }

    pub(crate) async fn send(&mut self, batch: &[&Reading], env: &Env) -> Sent {
        let most = if self.is_one_by_one { 1 } else { batch.len() };
        let (mut points, mut trouble) = (Vec::new(), None);
        for reading in batch.iter().take(most) {
            match number(&reading.value) {
                Ok(number) => points.push((*reading, number)),
                Err(reason) => {
                    trouble = Some(Trouble::Refused(reason));
                    break;
                }
            }
        }
        if points.is_empty() {
            return Sent { taken: 0, trouble };
        }
        let body = Bytes::from(request(&points).encode_to_vec());
        let outcome = match self.posts.post(&self.path, &[], PROTOBUF, &body, env).await {
            Ok(answer) => answer.taken().map(|()| rejected(answer.body.as_deref().unwrap_or_default())),
            Err(trouble) => Err(trouble),
        };
        match outcome {
            Ok(None) => Sent { taken: points.len(), trouble },
            Ok(Some(reason)) if points.len() == 1 => {
                self.is_one_by_one = false;
                Sent { taken: 0, trouble: Some(Trouble::Refused(reason)) }
            }
            // The standard says that those are not sent again.
            Ok(Some(reason)) => {
                self.is_one_by_one = true;
                tracing::warn!(
                    reason,
                    "a collector rejects some of several readings; the next one is sent alone"
                );
                Sent { taken: points.len(), trouble }
            }
            Err(Trouble::Refused(reason)) => Sent { taken: 0, trouble: Some(Trouble::OneRefused(reason)) },
            Err(trouble) => Sent { taken: 0, trouble: Some(trouble) },
        }
    }
}

fn number(value: &Value) -> Result<point::Number, String> {
    match value {
        Value::Int(number) => match i64::try_from(*number) {
            Ok(number) => Ok(point::Number::Int(number)),
            Err(_) => Err(format!("{number} is larger than 2^63-1, the largest whole number of a gauge")),
        },
        Value::Bool(is_true) => Ok(point::Number::Int(i64::from(*is_true))),
        Value::Float(_) | Value::Double(_) => Ok(point::Number::Double(value.number().unwrap_or_default())),
        Value::Text(_) => Err("a gauge holds numbers, and this is text".to_owned()),
    }
}

fn request(points: &[(&Reading, point::Number)]) -> Request {
    let mut resources: Vec<ResourceMetrics> = Vec::new();
    for (reading, number) in points {
        let id = format!("{}/{}", reading.device.namespace, reading.device.name);
        let resource = Resource { attributes: vec![Attribute::text(DEVICE, id)] };
        let of_device = |there: &ResourceMetrics| there.resource.as_ref() == Some(&resource);
        let at = match resources.iter().position(of_device) {
            Some(at) => at,
            None => {
                let scope =
                    Some(Scope { name: SCOPE.to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() });
                let scopes = vec![ScopeMetrics { scope, metrics: Vec::new() }];
                resources.push(ResourceMetrics { resource: Some(resource), scopes });
                resources.len() - 1
            }
        };
        let scopes = resources.get_mut(at).and_then(|there| there.scopes.first_mut());
        let Some(ScopeMetrics { metrics, .. }) = scopes else { continue };
        let at = u64::try_from(reading.since_1970().as_nanos()).unwrap_or(u64::MAX);
        let point = Point { at, number: Some(*number) };
        match metrics.iter_mut().find(|metric| metric.name == reading.property) {
            Some(metric) => metric.gauge.get_or_insert_default().points.push(point),
            None => metrics
                .push(Metric { name: reading.property.clone(), gauge: Some(Gauge { points: vec![point] }) }),
        }
    }
    Request { resources }
}

/// Why a collector that has answered well has not taken all of it.
fn rejected(answer: &[u8]) -> Option<String> {
    let partial = Response::decode(answer).ok()?.partial?;
    let said: String = partial.message.chars().take(200).collect();
    (partial.rejected > 0).then(|| format!("the collector rejects {} of them: {said}", partial.rejected))
}

// The messages of opentelemetry-proto's `metrics_service.proto` and `metrics.proto`, as far as they are used; what they share with those of
// traces is `otlp`'s.

#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<ResourceMetrics>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceMetrics {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<ScopeMetrics>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeMetrics {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    metrics: Vec<Metric>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Metric {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "5")]
    gauge: Option<Gauge>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Gauge {
    #[prost(message, repeated, tag = "1")]
    points: Vec<Point>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Point {
    #[prost(fixed64, tag = "3")]
    at: u64,
    #[prost(oneof = "point::Number", tags = "4, 6")]
    number: Option<point::Number>,
}

mod point {
    /// What a point holds.
    #[derive(Clone, Copy, PartialEq, prost::Oneof)]
    pub(super) enum Number {
        #[prost(double, tag = "4")]
        Double(f64),
        #[prost(sfixed64, tag = "6")]
        Int(i64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::reading::reading;

    #[test]
    fn a_collector_is_a_url_and_a_gauge_holds_numbers() {
        let read = |url: &str, kind| {
            let otel = PushMethodOtel { endpoint_url: url.to_owned() };
            OtelTarget::read(&otel, kind).map(|target| target.shown())
        };
        assert_eq!(read("http://h:4318", None), Ok("http://h:4318/v1/metrics".to_owned()));
        assert_eq!(read("https://h/a", Some(Kind::Bool)), Ok("https://h:443/a".to_owned()));
        assert!(read("", None).unwrap_err().contains("`endpointURL` is missing"));
        assert!(read("http://h", Some(Kind::Text)).unwrap_err().contains("STRING"));
    }

    #[test]
    fn numbers_are_exact_or_refused() {
        assert_eq!(number(&Value::Int(9_007_199_254_740_993)), Ok(point::Number::Int(9_007_199_254_740_993)));
        assert_eq!(number(&Value::Float(0.1)), Ok(point::Number::Double(0.1)), "as a person wrote it");
        assert_eq!(number(&Value::Bool(true)), Ok(point::Number::Int(1)));
        assert!(number(&Value::Int(1 << 63)).unwrap_err().contains("2^63-1"));
    }

    #[test]
    fn readings_of_a_property_are_points_of_one_gauge() {
        let readings =
            [reading("a", Value::Int(1)), reading("b", Value::Int(2)), reading("a", Value::Int(3))];
        let points: Vec<_> = readings.iter().map(|it| (it, number(&it.value).unwrap())).collect();
        let request = request(&points);
        let metrics = &request.resources[0].scopes[0].metrics;
        assert_eq!((request.resources.len(), metrics.len()), (1, 2));
        assert_eq!(metrics[0].gauge.as_ref().unwrap().points.len(), 2);
        assert_eq!(Request::decode(&*request.encode_to_vec()), Ok(request));
    }

    #[test]
    fn what_a_collector_rejects_is_said_in_its_words() {
        let answer = |rejected, message: &str| {
            Response { partial: Some(otlp::PartialSuccess { rejected, message: message.to_owned() }) }
                .encode_to_vec()
        };
        assert_eq!(rejected(&[]), None);
        assert_eq!(rejected(&answer(0, "a hint")), None);
        assert!(rejected(&answer(2, "too old")).unwrap().contains("too old"));
    }
}
