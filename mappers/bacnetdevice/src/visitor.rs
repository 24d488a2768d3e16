//! Which property of which object is meant.

use framework::{InvalidSetting, Kind, Property, Scale, Settings, shown};

use crate::data_type::DataType;
use crate::encoding::Encoding;
use crate::names;
use crate::target::{ANY_INSTANCE, ObjectId, Target};

/// The priority that the standard keeps for minimum on and off times (19.2.3).
const RESERVED: u8 = 6;
/// 16: the lowest priority, which a write has that names none.
pub(crate) const LOWEST: u8 = 16;

/// Which property of which object is meant, and how it is dealt with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Visitor {
    /// The property.
    pub target: Target,
    /// How its values are.
    pub encoding: Encoding,
    /// The priority that is named in a write, 1 to 16.
    pub priority: Option<u8>,
    /// What is not desired any more is relinquished.
    pub relinquish: bool,
    /// The device is asked to tell of changes.
    pub cov: bool,
    /// The object's status flags are read with the value.
    pub flags: bool,
}

impl Visitor {
    /// From `visitors.configData`.
    ///
    /// # Errors
    /// With the key and the cure.
    pub fn read(property: &Property, settings: &Settings) -> Result<Self, InvalidSetting> {
        let target = target(settings)?;
        let object_type = target.object.object_type;
        let is_present = target.property == names::PRESENT_VALUE && target.index.is_none();
        let priority = match settings.whole("priority")? {
            None => None,
            Some(_) => Some(settings.whole_within("priority", 0, 1..=LOWEST.into())?),
        };
        if priority == Some(RESERVED) {
            let sentence =
                "setting `priority` is 6, which devices keep for minimum on and off times; write another one";
            return Err(InvalidSetting::new(sentence));
        }
        let only_present = |key: &str| {
            let is_set = settings.flag(key)?;
            if is_set && !is_present {
                let sentence = format!("setting `{key}` is for present-value; leave it out");
                return Err(InvalidSetting::new(sentence));
            }
            Ok(is_set)
        };
        let (relinquish, cov) = (only_present("relinquish")?, only_present("cov")?);
        if relinquish && !names::may_have_priorities(object_type) {
            let sentence = format!(
                "setting `relinquish` is for objects with priorities, and {} has none; leave it out",
                target.object
            );
            return Err(InvalidSetting::new(sentence));
        }
        let has_flags = match settings.text("statusFlags")? {
            None => true,
            Some(_) => settings.flag("statusFlags")?,
        };
        let encoding = Encoding {
            kind: property.kind,
            data_type: data_type(property, &target, settings)?,
            scale: scale(property.kind, settings)?,
            is_binary: is_present && names::is_binary(object_type),
            is_multi_state: is_present && names::is_multi_state(object_type),
        };
        let flags = has_flags && is_present && names::has_status_flags(object_type);
        Ok(Visitor { target, encoding, priority, relinquish, cov, flags })
    }

    /// The place in the object's priorities that this is written to, where it may have some.
    pub(crate) fn own_place(&self) -> Option<Target> {
        let is_present = self.target.property == names::PRESENT_VALUE && self.target.index.is_none();
        let has_some = is_present && names::may_have_priorities(self.target.object.object_type);
        let index = Some(self.priority.unwrap_or(LOWEST).into());
        has_some.then_some(Target { property: names::PRIORITY_ARRAY, index, ..self.target })
    }
}

fn target(settings: &Settings) -> Result<Target, InvalidSetting> {
    let named = settings.text("objectType")?.unwrap_or_default();
    let object_type = names::object_type(&named).ok_or_else(|| {
        InvalidSetting::new(format!(
            "setting `objectType` is `{}`; write its name, as analog-value or AV, or its number",
            shown(&named)
        ))
    })?;
    let instance = settings.whole("objectInstance")?;
    let instance = instance.ok_or_else(|| {
        InvalidSetting::new(
            "setting `objectInstance` is missing; write the object's number, as 3 of analog-value 3",
        )
    })?;
    let object = u32::try_from(instance).ok().filter(|instance| *instance < ANY_INSTANCE);
    let object = object.and_then(|instance| ObjectId::new(object_type, instance)).ok_or_else(|| {
        InvalidSetting::new(format!(
            "settings `objectType` and `objectInstance` are {object_type} and {instance}; at most 1023 and 4194302"
        ))
    })?;
    let property = match settings.text("property")? {
        None => names::PRESENT_VALUE,
        Some(named) => names::property(&named).filter(|number| *number <= 4_194_303).ok_or_else(|| {
            InvalidSetting::new(format!(
                "setting `property` is `{}`, whose number is not known here; write its number, as 85 of present-value",
                shown(&named)
            ))
        })?,
    };
    let index = match settings.whole("index")? {
        None => None,
        Some(_) => Some(settings.whole_within("index", 0, 0..=u32::MAX.into())?),
    };
    Ok(Target { object, property, index })
}

/// As what it is written: as `dataType` says, or the standard, or as what the property is.
fn data_type(property: &Property, target: &Target, settings: &Settings) -> Result<DataType, InvalidSetting> {
    if let Some(name) = settings.text("dataType")? {
        return DataType::named(&name).ok_or_else(|| {
            InvalidSetting::new(format!(
                "setting `dataType` is `{}`; write boolean, unsigned, signed, real, double, string, octetstring or enumerated",
                shown(&name)
            ))
        });
    }
    let by_the_standard = names::data_type(target.object.object_type, target.property);
    Ok(by_the_standard.unwrap_or(match property.kind {
        Kind::Int if property.minimum.is_some_and(|minimum| minimum < 0.0) => DataType::Signed,
        Kind::Int => DataType::Unsigned,
        Kind::Float | Kind::Double => DataType::Real,
        Kind::Text => DataType::Text,
        Kind::Bool => DataType::Boolean,
    }))
}

fn scale(kind: Kind, settings: &Settings) -> Result<Scale, InvalidSetting> {
    let scale = Scale::read(settings)?;
    if !scale.is_one() && !matches!(kind, Kind::Float | Kind::Double) {
        return Err(InvalidSetting::new("setting `scale` is for FLOAT and DOUBLE; make the property one"));
    }
    Ok(scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use framework::Scalar;

    fn read(kind: Kind, pairs: &[(&str, &str)]) -> Result<Visitor, String> {
        let pairs = pairs.iter().map(|(key, value)| (*key, Scalar::Text((*value).to_owned())));
        let read = Visitor::read(&Property::new("p", kind), &Settings::from_pairs(pairs));
        read.map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn what_is_not_said_is_as_the_standard_has_it() {
        let of = |object_type: &str, more: &[(&str, &str)], kind| {
            let pairs = [&[("objectType", object_type), ("objectInstance", "3")], more].concat();
            read(kind, &pairs).unwrap()
        };
        let plain = of("analogValue", &[], Kind::Double);
        assert_eq!(plain.target, Target::of(ObjectId::new(2, 3).unwrap(), 85));
        assert_eq!((plain.priority, plain.relinquish, plain.cov, plain.flags), (None, false, false, true));
        assert_eq!(plain.encoding.data_type, DataType::Real);
        let place = plain.own_place().unwrap();
        assert_eq!((place.property, place.index), (87, Some(16)));
        assert_eq!(of("AV", &[("priority", "8")], Kind::Double).own_place().unwrap().index, Some(8));
        assert_eq!(of("AI", &[], Kind::Double).own_place(), None);
        assert!(!of("AV", &[("statusFlags", "false")], Kind::Double).flags);
        let limit = of("AV", &[("property", "high-limit")], Kind::Double);
        assert_eq!((limit.encoding.data_type, limit.flags, limit.own_place()), (DataType::Real, false, None));
        assert_eq!(of("BV", &[], Kind::Bool).encoding.data_type, DataType::Enumerated);
        assert_eq!(
            of("BV", &[("property", "outOfService")], Kind::Bool).encoding.data_type,
            DataType::Boolean
        );
        assert_eq!(of("130", &[("property", "9997")], Kind::Int).encoding.data_type, DataType::Unsigned);
        let said = of("130", &[("property", "9997"), ("dataType", "Signed"), ("index", "2")], Kind::Int);
        assert_eq!((said.encoding.data_type, said.target.index), (DataType::Signed, Some(2)));
    }

    proptest::proptest! {
        #[test]
        fn whatever_somebody_writes_is_taken_or_refused(texts in proptest::collection::vec("\\PC{0,12}|-?[0-9]{1,20}|true|AV", 12)) {
            const KEYS: [&str; 12] = [
                "objectType", "objectInstance", "property", "index", "priority", "dataType", "scale", "cov", "relinquish",
                "statusFlags", "min", "max",
            ];
            let pairs: Vec<(&str, &str)> = KEYS.into_iter().zip(texts.iter().map(String::as_str)).collect();
            for kind in [Kind::Int, Kind::Double, Kind::Text] {
                // A few of them are right, or all might be refused for the first one.
                let right = [("objectType", "AV"), ("objectInstance", "3")];
                for pairs in [pairs.clone(), [&pairs[2..], &right[..]].concat(), [&pairs[4..5], &right[..]].concat()] {
                    if let Err(refusal) = read(kind, &pairs) {
                        assert!(refusal.contains('`') && refusal.len() < 400, "{refusal}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_says_what_to_write() {
        let object = [("objectType", "AV"), ("objectInstance", "3")];
        for (pairs, said) in [
            (vec![], "`objectType`"),
            (vec![("objectType", "valve"), ("objectInstance", "3")], "`valve`"),
            (vec![("objectType", "AV")], "`objectInstance` is missing"),
            (vec![("objectType", "AV"), ("objectInstance", "4194303")], "4194302"),
            (vec![("objectType", "AV"), ("objectInstance", "-1")], "4194302"),
            (vec![("objectType", "1024"), ("objectInstance", "1")], "1023"),
            ([&object[..], &[("property", "warmth")]].concat(), "85 of present-value"),
            ([&object[..], &[("priority", "6")]].concat(), "minimum on and off"),
            ([&object[..], &[("priority", "17")]].concat(), "`priority`"),
            ([&object[..], &[("index", "-1")]].concat(), "`index`"),
            ([&object[..], &[("dataType", "word")]].concat(), "octetstring"),
            ([&object[..], &[("scale", "0.1")]].concat(), "`scale`"),
            ([&object[..], &[("property", "units"), ("cov", "true")]].concat(), "`cov` is for present-value"),
            ([&object[..], &[("index", "1"), ("relinquish", "true")]].concat(), "`relinquish`"),
            (vec![("objectType", "AI"), ("objectInstance", "3"), ("relinquish", "true")], "priorities"),
        ] {
            let refusal = read(Kind::Int, &pairs).unwrap_err();
            assert!(refusal.contains(said), "{refusal}");
        }
    }
}
