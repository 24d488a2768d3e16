//! Series of one owner, as cAdvisor labels them.

use crate::stats::exposition::Exposition;

/// Whose series it is: all labels stand on each, empty where there is nothing to say.
#[derive(Clone, Copy, Default)]
pub(crate) struct Whose<'a> {
    pub(crate) container: &'a str,
    pub(crate) id: &'a str,
    pub(crate) image: &'a str,
    pub(crate) name: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) pod: &'a str,
}

impl<'a> Whose<'a> {
    pub(crate) fn labels(&self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let own = [
            ("container", self.container),
            ("id", self.id),
            ("image", self.image),
            ("name", self.name),
            ("namespace", self.namespace),
            ("pod", self.pod),
        ];
        own.into_iter().chain(more.iter().copied()).collect()
    }
}

/// Writes series of one owner at one moment.
pub(crate) struct Writer<'a, 'b> {
    pub(crate) page: &'b mut Exposition,
    pub(crate) whose: Whose<'a>,
    /// Milliseconds since 1970.
    pub(crate) at: i64,
}

impl<'a> Writer<'a, '_> {
    pub(crate) fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        more: &[(&'a str, &'a str)],
        value: Option<f64>,
    ) {
        if let Some(value) = value {
            self.page.counter(name, help).add(&self.whose.labels(more), value, Some(self.at));
        }
    }

    pub(crate) fn gauge(&mut self, name: &'static str, help: &'static str, value: Option<u64>) {
        self.gauge_of(name, help, &[], value);
    }

    /// The same with more labels, which may live shorter than the owner.
    pub(crate) fn gauge_of(
        &mut self,
        name: &'static str,
        help: &'static str,
        more: &[(&str, &str)],
        value: Option<u64>,
    ) {
        let Some(value) = value else { return };
        let mut labels: Vec<(&str, &str)> = self.whose.labels(&[]);
        labels.extend_from_slice(more);
        self.page.gauge(name, help).add(&labels, value as f64, Some(self.at));
    }

    /// What is set, not measured: without a moment.
    pub(crate) fn spec(&mut self, name: &'static str, help: &'static str, value: Option<u64>) {
        if let Some(value) = value {
            self.page.gauge(name, help).add(&self.whose.labels(&[]), value as f64, None);
        }
    }
}
