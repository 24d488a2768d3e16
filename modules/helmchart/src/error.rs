//! Why a chart is not rendered.

use thiserror::Error;

/// Why a chart is not rendered.
#[derive(Debug, Error)]
pub enum ChartError {
    /// `--set` is not understood.
    #[error("`{pair}` is not understood: {why}")]
    Set {
        /// What was given.
        pair: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file of values is no mapping.
    #[error("the values are not understood: {0}")]
    Values(String),
    /// Values that the chart does not take.
    #[error("{}", .0.join("; "))]
    Schema(Vec<String>),
    /// What a template says by `fail`, which is meant for whoever gave the values.
    #[error("{0}")]
    Refused(String),
    /// A template that is not right.
    #[error("the template {name} of the chart is not right: {why}")]
    Template {
        /// Which.
        name: String,
        /// What is wrong with it.
        why: String,
    },
}
