//! Values: the chart's own, and those of whoever installs it laid over them.

use serde_json::{Map, Value};

use crate::error::ChartError;
use crate::files::{SCHEMA, VALUES};
use crate::schema::Schema;

/// 1 MiB of values: an object of Kubernetes holds no more.
pub const VALUES_MAX: usize = 1 << 20;

/// Values from a file, as `helm install --values` takes them.
///
/// # Errors
/// When it is too long, no YAML, or no mapping.
pub fn parse(text: &str) -> Result<Value, ChartError> {
    if text.len() > VALUES_MAX {
        return Err(ChartError::Values(format!("{} bytes, and at most {VALUES_MAX} are read", text.len())));
    }
    // Aliases of aliases could make a gigabyte of it.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_aliases: 16 },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 10_000 },
    };
    match serde_saphyr::from_str_with_options::<Value>(text, options) {
        Ok(Value::Null) => Ok(Value::Object(Map::new())),
        Ok(values @ Value::Object(_)) => Ok(values),
        Ok(_) => Err(ChartError::Values("they are no mapping".to_owned())),
        Err(error) => Err(ChartError::Values(error.to_string())),
    }
}

/// The chart's own values.
///
/// # Errors
/// When the chart is not right.
pub fn defaults() -> Result<Value, ChartError> {
    parse(VALUES)
}

/// Lays values over the chart's, as Helm does: mappings into each other, everything else in place of it, and `null` takes away.
/// Then holds them against the chart's schema.
///
/// # Errors
/// Every key that the chart does not know, and every value that is not of its kind.
pub fn with_defaults(given: &Value) -> Result<Value, ChartError> {
    let mut values = defaults()?;
    lay(&mut values, given);
    let schema = Schema::parse(SCHEMA).map_err(ChartError::Values)?;
    let defects = schema.defects(&values);
    if defects.is_empty() { Ok(values) } else { Err(ChartError::Schema(defects)) }
}

/// Lays one tree over another.
pub(crate) fn lay(below: &mut Value, over: &Value) {
    match (below, over) {
        (Value::Object(below), Value::Object(over)) => {
            for (key, value) in over {
                if value.is_null() {
                    below.remove(key);
                } else {
                    lay(below.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (below, over) => *below = over.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_laid_over_the_charts_as_helm_does() {
        let mut values = json!({"a": {"b": 1, "c": [1, 2]}, "d": "x"});
        lay(&mut values, &json!({"a": {"b": null, "c": [3], "e": {"f": 1}}, "d": {"g": true}}));
        assert_eq!(values, json!({"a": {"c": [3], "e": {"f": 1}}, "d": {"g": true}}));
    }

    #[test]
    fn a_file_of_values_is_a_mapping_of_bounded_size() {
        assert_eq!(parse("").unwrap(), json!({}));
        assert_eq!(parse("a: {b: 1}").unwrap(), json!({"a": {"b": 1}}));
        for bad in ["- a", "text", "a: b: c", "a: [", &format!("a: {}", "x".repeat(VALUES_MAX))] {
            assert!(parse(bad).is_err(), "{}", &bad[..bad.len().min(20)]);
        }
    }

    #[test]
    fn a_key_that_the_chart_does_not_know_is_refused_by_its_name() {
        let refused = |given: Value| with_defaults(&given).unwrap_err().to_string();
        assert!(with_defaults(&json!({})).is_ok(), "the chart's own values are right");
        let told = refused(json!({"cloudCore": {"replicas": 3}, "iptablesManager": {"mode": "external"}}));
        assert!(told.contains("`cloudCore.replicas`") && told.contains("`iptablesManager`"), "{told}");
        let told = refused(json!({"cloudCore": {"modules": {"dynamicController": {"enable": true}}}}));
        assert!(told.contains("`cloudCore.modules.dynamicController`"), "{told}");
        let told = refused(json!({"cloudCore": {"replicaCount": "two", "service": {"type": "Ingress"}}}));
        assert!(told.contains("`cloudCore.replicaCount`") && told.contains("NodePort"), "{told}");
    }
}
