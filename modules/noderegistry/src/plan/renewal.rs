//! A certificate that takes the place of another one, in a name's object.
//!
//! The new one stands in the object before the node is given it. Both are good until the new one is used: the node says that it has it
//! on its disk, or a session begins with it. So a power cut at any instant leaves the node with one that is good.

use crd::{CERTIFICATE_ANNOTATION, EdgeNode, NEXT_CERTIFICATE_ANNOTATION};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Certificate, rfc3339};

/// The serial of the certificate that is to take the living one's place, in an EdgeNode's metadata.
pub fn next(metadata: &ObjectMeta) -> Option<String> {
    let annotations = metadata.annotations.as_ref()?;
    annotations.get(NEXT_CERTIFICATE_ANNOTATION).filter(|serial| !serial.is_empty()).cloned()
}

/// Notes a certificate that is to take the living one's place. One that was noted before and never used is good for nothing any more.
pub(crate) fn renewed(object: &mut EdgeNode, certificate: &Certificate) {
    let annotations = object.metadata.annotations.get_or_insert_default();
    annotations.insert(NEXT_CERTIFICATE_ANNOTATION.to_owned(), certificate.serial.clone());
    object.spec.next_not_after = Some(rfc3339(certificate.not_after_unix));
}

/// The certificate of this serial was used: if it was to take the living one's place, it has. Answers whether something changed.
pub(crate) fn used(object: &mut EdgeNode, serial: &str) -> bool {
    if next(&object.metadata).as_deref() != Some(serial) {
        return false;
    }
    let annotations = object.metadata.annotations.get_or_insert_default();
    annotations.remove(NEXT_CERTIFICATE_ANNOTATION);
    annotations.insert(CERTIFICATE_ANNOTATION.to_owned(), serial.to_owned());
    let spec = &mut object.spec;
    let before = spec.serial.replace(serial.to_owned());
    spec.enrolment_serial = spec.enrolment_serial.take().or(before);
    spec.not_after = spec.next_not_after.take();
    true
}

/// Takes both certificates of a name back.
pub(crate) fn given_back(object: &mut EdgeNode) {
    if let Some(annotations) = &mut object.metadata.annotations {
        annotations.remove(CERTIFICATE_ANNOTATION);
        annotations.remove(NEXT_CERTIFICATE_ANNOTATION);
    }
    object.spec.next_not_after = None;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Entry;
    use crd::EdgeNodeSpec;

    fn certificate(serial: &str, not_after_unix: u64) -> Certificate {
        Certificate { serial: serial.to_owned(), not_after_unix }
    }

    fn joined() -> EdgeNode {
        let mut object = EdgeNode::new("edge-1", EdgeNodeSpec::default());
        super::super::enrolled(&mut object, &certificate("aa", 100), None, "t", 1);
        object
    }

    #[test]
    fn both_are_good_until_the_new_one_is_used_and_then_it_alone() {
        let mut object = joined();
        renewed(&mut object, &certificate("bb", 200));
        let entry = Entry::of(&object);
        assert!(entry.is_good("aa") && entry.is_good("bb") && !entry.is_good("cc"));
        assert_eq!(entry.newest, Some(certificate("aa", 100)), "it was not used yet");
        assert!(entry.lives(150), "the new one is good, although the old one has ended");
        assert!(!used(&mut object, "aa"), "the old one changes nothing");
        assert!(used(&mut object, "bb") && !used(&mut object, "bb"));
        let entry = Entry::of(&object);
        assert!(!entry.is_good("aa") && entry.is_good("bb") && entry.next.is_none());
        assert_eq!(entry.newest, Some(certificate("bb", 200)));
        assert_eq!(entry.enrolment.as_deref(), Some("aa"));
    }

    #[test]
    fn one_that_was_never_used_gives_way_to_the_next_and_the_first_join_is_not_forgotten() {
        let mut object = joined();
        renewed(&mut object, &certificate("bb", 200));
        renewed(&mut object, &certificate("cc", 300));
        assert!(!Entry::of(&object).is_good("bb") && Entry::of(&object).is_good("aa"));
        assert!(used(&mut object, "cc"));
        renewed(&mut object, &certificate("dd", 400));
        assert!(used(&mut object, "dd"));
        assert_eq!(Entry::of(&object).enrolment.as_deref(), Some("aa"));
        super::super::enrolled(&mut object, &certificate("ee", 500), None, "t", 1);
        let entry = Entry::of(&object);
        assert!(entry.enrolment.is_none() && entry.is_good("ee") && !entry.is_good("dd"));
    }

    #[test]
    fn a_name_that_is_given_back_has_no_certificate() {
        let mut object = joined();
        renewed(&mut object, &certificate("bb", 200));
        given_back(&mut object);
        let entry = Entry::of(&object);
        assert!(!entry.is_good("aa") && !entry.is_good("bb") && !entry.lives(50));
    }
}
