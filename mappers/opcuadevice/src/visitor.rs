//! Where a property is within a server.

use std::time::Duration;

use framework::{InvalidSetting, Kind, Property, Settings};
use opcua_types::NumericRange;

use crate::node::Node;

/// 1 s between two looks that a server takes by itself, where neither `samplingMs` nor a cycle says otherwise.
const SAMPLING: Duration = Duration::from_secs(1);
/// 1 h between two looks at the most.
const SAMPLING_MAX_MS: i64 = 3_600_000;
/// 1000 values that a server keeps of a property until it sends them; the newest counts.
const QUEUE_MAX: i64 = 1000;

/// Where a property is.
#[derive(Debug, Clone, PartialEq)]
pub struct Visitor {
    /// The variable; with a method, the object that the method is called on.
    pub node: Node,
    /// What its values are.
    pub kind: Kind,
    /// The part of an array that is meant.
    pub index: NumericRange,
    /// The method that is called with what is desired.
    pub method: Option<Node>,
    /// How the server looks at the variable by itself. None: it is read in its cycle.
    pub monitoring: Option<Monitoring>,
}

/// Which part of what a node has is a property's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All that comes.
    Whole,
    /// One element; where, unless it has more dimensions than are looked at here.
    Element(Option<Element>),
    /// Some elements in a row of an array of one dimension, both ends included.
    Range { from: u32, to: u32 },
    /// Some elements in several dimensions, at most so many.
    Block { most: u64 },
}

/// 8 dimensions of an array of which a server sends all, whatever was asked for.
const DIMENSIONS_MAX: usize = 8;

/// The place of one element: a number for each dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Element {
    at: [u32; DIMENSIONS_MAX],
    dimensions: usize,
}

impl Element {
    pub(crate) fn new(places: &[u32]) -> Option<Self> {
        let mut at = [0; DIMENSIONS_MAX];
        at.get_mut(..places.len())?.copy_from_slice(places);
        Some(Element { at, dimensions: places.len() })
    }

    /// Where it is in all of an array of `length` elements with these dimensions, the last of which counts fastest (Part 6, 5.2.2.16).
    /// `None`: there is no such element.
    pub(crate) fn within(&self, dimensions: Option<&[u32]>, length: usize) -> Option<usize> {
        let one = [u32::try_from(length).ok()?];
        let sizes = dimensions.filter(|sizes| !sizes.is_empty()).unwrap_or(&one);
        let places = self.at.get(..self.dimensions)?;
        if places.len() != sizes.len() {
            return None;
        }
        let mut place = 0_usize;
        for (at, size) in places.iter().zip(sizes) {
            if at >= size {
                return None;
            }
            place =
                place.checked_mul(usize::try_from(*size).ok()?)?.checked_add(usize::try_from(*at).ok()?)?;
        }
        Some(place)
    }
}

/// How a server looks at a variable by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Monitoring {
    /// How often.
    pub sampling: Duration,
    /// How many values it keeps until it sends them.
    pub queue: u32,
    /// How far a number has to move to be sent.
    pub deadband: Option<f64>,
    /// How often it is told again if it did not change. None: it is not told.
    pub told_every: Option<Duration>,
}

impl Visitor {
    /// From `visitors.configData`, in KubeEdge's keys and ours.
    ///
    /// # Errors
    /// With the key and the cure.
    pub fn read(property: &Property, settings: &Settings) -> Result<Self, InvalidSetting> {
        let uri = settings.text("namespaceUri")?;
        let node = settings.text("nodeID")?.ok_or_else(|| {
            InvalidSetting::new(
                "setting `nodeID` is missing; write it as the server's tools show it, as ns=2;s=NAME",
            )
        })?;
        let node = Node::read("nodeID", &node, uri.as_deref())?;
        // Said for those who read the file, as with KubeEdge: the node id leads there.
        settings.text("browseName")?;
        let method = settings.text("method")?;
        let method = method.map(|method| Node::read("method", &method, uri.as_deref())).transpose()?;
        let index = index(settings)?;
        let monitoring = monitoring(property, settings)?;
        if method.is_some() && !property.writable {
            return Err(InvalidSetting::new(
                "a method is called by what is desired; make the property ReadWrite",
            ));
        }
        if method.is_some() && !index.is_none() {
            return Err(InvalidSetting::new(
                "setting `index` is of a variable, and `method` is there; remove one",
            ));
        }
        Ok(Visitor {
            node,
            kind: property.kind,
            index,
            monitoring: monitoring.filter(|_| method.is_none()),
            method,
        })
    }

    /// Which part of what the node has is meant.
    pub(crate) fn part(&self) -> Part {
        match &self.index {
            NumericRange::Index(at) => Part::Element(Element::new(&[*at])),
            NumericRange::MultipleRanges(each) => {
                let place = |one: &NumericRange| match one {
                    NumericRange::Index(at) => Some(*at),
                    NumericRange::None | NumericRange::Range(..) | NumericRange::MultipleRanges(_) => None,
                };
                let places: Option<Vec<u32>> = each.iter().map(place).collect();
                let most = || each.iter().map(width).fold(1, u64::saturating_mul);
                places.map_or_else(
                    || Part::Block { most: most() },
                    |places| Part::Element(Element::new(&places)),
                )
            }
            NumericRange::Range(from, to) => Part::Range { from: *from, to: *to },
            NumericRange::None => Part::Whole,
        }
    }
}

/// How many elements there are of one dimension.
fn width(one: &NumericRange) -> u64 {
    match one {
        NumericRange::Range(from, to) => u64::from(to.saturating_sub(*from)) + 1,
        NumericRange::Index(_) | NumericRange::None | NumericRange::MultipleRanges(_) => 1,
    }
}

fn index(settings: &Settings) -> Result<NumericRange, InvalidSetting> {
    let Some(text) = settings.text("index")? else { return Ok(NumericRange::None) };
    text.trim().parse().map_err(|_| {
        InvalidSetting::new(format!(
            "setting `index` is `{text}`; write an element's number from 0, a range as 0:3, or one for each dimension as 1,2"
        ))
    })
}

fn monitoring(property: &Property, settings: &Settings) -> Result<Option<Monitoring>, InvalidSetting> {
    let sampling = match settings.whole("samplingMs")? {
        None => property.cycle.unwrap_or(SAMPLING),
        Some(_) => Duration::from_millis(settings.whole_within("samplingMs", 0, 1..=SAMPLING_MAX_MS)?),
    };
    let queue = settings.whole_within("queueSize", 1, 1..=QUEUE_MAX)?;
    let deadband = settings.number("deadband")?.filter(|deadband| *deadband != 0.0);
    if deadband.is_some_and(|deadband| deadband < 0.0) {
        return Err(InvalidSetting::new(
            "setting `deadband` is negative; write how far a number has to move",
        ));
    }
    if deadband.is_some() && !matches!(property.kind, Kind::Int | Kind::Float | Kind::Double) {
        return Err(InvalidSetting::new(
            "setting `deadband` is of numbers, and the property is none; remove it",
        ));
    }
    // On unless it is switched off.
    let is_wanted = settings.text("subscribe")?.is_none() || settings.flag("subscribe")?;
    if deadband.is_some() && !is_wanted {
        return Err(InvalidSetting::new(
            "setting `deadband` is of a subscription, and `subscribe` is false; remove one",
        ));
    }
    Ok(is_wanted.then_some(Monitoring { sampling, queue, deadband, told_every: property.told_every }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use framework::Scalar;

    fn text(text: &str) -> Scalar {
        Scalar::Text(text.to_owned())
    }

    fn read(kind: Kind, pairs: &[(&str, Scalar)]) -> Result<Visitor, String> {
        let property = Property {
            writable: true,
            cycle: Some(Duration::from_millis(250)),
            told_every: Some(Duration::from_secs(1)),
            ..Property::new("p", kind)
        };
        let pairs = [&[("nodeid", text("ns=2;s=x"))], pairs].concat();
        Visitor::read(&property, &Settings::from_pairs(pairs)).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn a_property_is_sent_by_the_server_in_its_cycle_unless_told_otherwise() {
        let visitor = read(Kind::Int, &[("browseName", text("x"))]).unwrap();
        let told_every = Some(Duration::from_secs(1));
        let by_cycle =
            Monitoring { sampling: Duration::from_millis(250), queue: 1, deadband: None, told_every };
        assert_eq!(visitor.monitoring, Some(by_cycle));
        let visitor =
            read(Kind::Double, &[("samplingMs", Scalar::Int(20)), ("deadband", text("0.5"))]).unwrap();
        let monitoring = visitor.monitoring.unwrap();
        assert_eq!((monitoring.sampling, monitoring.deadband), (Duration::from_millis(20), Some(0.5)));
        assert_eq!(read(Kind::Int, &[("subscribe", Scalar::Bool(false))]).unwrap().monitoring, None);
        assert_eq!(read(Kind::Int, &[("method", text("ns=2;s=m"))]).unwrap().monitoring, None);
    }

    #[test]
    fn a_part_of_an_array_is_a_range_of_part_4() {
        let part = |index: Scalar| read(Kind::Text, &[("index", index)]).unwrap().part();
        assert_eq!(part(Scalar::Int(3)), Part::Element(Element::new(&[3])));
        assert_eq!(part(text("1,2")), Part::Element(Element::new(&[1, 2])));
        assert_eq!(part(text("0:3")), Part::Range { from: 0, to: 3 });
        assert_eq!(part(text("1,0:3,2:3")), Part::Block { most: 8 });
        assert_eq!(read(Kind::Int, &[]).unwrap().part(), Part::Whole);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (kind, pair, said) in [
            (Kind::Int, ("index", text("one")), "`index`"),
            (Kind::Int, ("samplingMs", Scalar::Int(0)), "`samplingMs`"),
            (Kind::Int, ("queueSize", Scalar::Int(0)), "`queueSize`"),
            (Kind::Int, ("deadband", text("-1")), "`deadband`"),
            (Kind::Text, ("deadband", text("1")), "`deadband` is of numbers"),
            (Kind::Int, ("nodeID", text("x")), "no node id"),
            (Kind::Int, ("method", text("x")), "`method`"),
        ] {
            let refusal = read(kind, &[pair]).unwrap_err();
            assert!(refusal.contains(said), "{refusal}");
        }
        let both = [("deadband", text("1")), ("subscribe", Scalar::Bool(false))];
        assert!(read(Kind::Int, &both).unwrap_err().contains("remove one"));
    }
}
