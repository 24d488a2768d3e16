//! What is put into an outbox.

use std::rc::Rc;

use crate::push::plan::Route;
use crate::push::reading::Reading;

/// A reading, and how it goes.
#[derive(Debug, PartialEq)]
pub(crate) struct Parcel {
    pub(crate) route: Rc<Route>,
    pub(crate) reading: Reading,
}
