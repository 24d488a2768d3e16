//! Certificates that take the place of another one, in a name's object.
//!
//! A new one stands in the object before the node is given it. Which of those that were signed is on the node's disk is known to the node
//! alone: its word that it has kept one may be lost, and a power cut may come between two files. So all are good, and the elder one with
//! them, until the node shows which it uses: it says so, or a link is made with it. From then on what was signed before that one is worth
//! nothing; what was signed after it may be on the disk still.

use crd::{CERTIFICATE_ANNOTATION, EdgeNode, EdgeNodeSpec, NEXT_CERTIFICATE_ANNOTATION};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Certificate, rfc3339};

/// 8 certificates of a name that were signed and not used yet. A node that asks for more has kept none of them: it writes each in the
/// place of the one before.
pub const NEXT_MAX: usize = 8;
/// What stands between two of them.
const SEPARATOR: char = ',';

/// The serials of the certificates that may take the living one's place, in an EdgeNode's metadata, as they were signed.
pub fn next(metadata: &ObjectMeta) -> Vec<String> {
    let noted = metadata.annotations.as_ref().and_then(|found| found.get(NEXT_CERTIFICATE_ANNOTATION));
    let noted = noted.into_iter().flat_map(|list| list.split(SEPARATOR));
    noted.filter(|serial| !serial.is_empty()).map(str::to_owned).collect()
}

/// When they end, in the same order.
pub(crate) fn next_ends(spec: &EdgeNodeSpec) -> Vec<String> {
    let noted = spec.next_not_after.iter().flat_map(|list| list.split(SEPARATOR));
    noted.map(str::to_owned).collect()
}

/// Writes both lists.
fn note(object: &mut EdgeNode, serials: &[String], ends: &[String]) {
    let text = |list: &[String]| (!serials.is_empty()).then(|| list.join(&SEPARATOR.to_string()));
    let annotations = object.metadata.annotations.get_or_insert_default();
    match text(serials) {
        Some(serials) => drop(annotations.insert(NEXT_CERTIFICATE_ANNOTATION.to_owned(), serials)),
        None => drop(annotations.remove(NEXT_CERTIFICATE_ANNOTATION)),
    }
    object.spec.next_not_after = text(ends);
}

/// Both lists as they stand in an object, of one length.
fn noted(object: &EdgeNode) -> (Vec<String>, Vec<String>) {
    let (serials, mut ends) = (next(&object.metadata), next_ends(&object.spec));
    // What cannot be read does not end.
    ends.resize(serials.len(), rfc3339(u64::MAX));
    (serials, ends)
}

/// Notes a certificate that may take the living one's place. Beyond [`NEXT_MAX`] the eldest goes.
pub(crate) fn renewed(object: &mut EdgeNode, certificate: &Certificate) {
    let (mut serials, mut ends) = noted(object);
    serials.push(certificate.serial.clone());
    ends.push(rfc3339(certificate.not_after_unix));
    let beyond = serials.len().saturating_sub(NEXT_MAX);
    serials.drain(..beyond);
    ends.drain(..beyond);
    note(object, &serials, &ends);
}

/// The certificate of this serial was used: if it was to take the living one's place, it has, and what was signed before it is worth
/// nothing. Answers whether something changed.
pub(crate) fn used(object: &mut EdgeNode, serial: &str) -> bool {
    let (serials, ends) = noted(object);
    let Some(at) = serials.iter().position(|next| next == serial) else { return false };
    let later = at.saturating_add(1);
    note(object, serials.get(later..).unwrap_or_default(), ends.get(later..).unwrap_or_default());
    let annotations = object.metadata.annotations.get_or_insert_default();
    annotations.insert(CERTIFICATE_ANNOTATION.to_owned(), serial.to_owned());
    let spec = &mut object.spec;
    let before = spec.serial.replace(serial.to_owned());
    spec.enrolment_serial = spec.enrolment_serial.take().or(before);
    spec.not_after = ends.get(at).cloned();
    true
}

/// Takes all certificates of a name back.
pub(crate) fn given_back(object: &mut EdgeNode) {
    if let Some(annotations) = &mut object.metadata.annotations {
        annotations.remove(CERTIFICATE_ANNOTATION);
    }
    note(object, &[], &[]);
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
        assert!(!entry.is_good("aa") && entry.is_good("bb") && entry.next.is_empty());
        assert_eq!(entry.newest, Some(certificate("bb", 200)));
        assert_eq!(entry.enrolment.as_deref(), Some("aa"));
    }

    #[test]
    fn whichever_is_on_the_disk_is_good_until_the_node_shows_it_and_the_first_join_is_not_forgotten() {
        let mut object = joined();
        for (serial, ends) in [("bb", 200), ("cc", 300), ("dd", 400)] {
            renewed(&mut object, &certificate(serial, ends));
        }
        let entry = Entry::of(&object);
        assert!(["aa", "bb", "cc", "dd"].iter().all(|serial| entry.is_good(serial)));
        assert_eq!(entry.next, [certificate("bb", 200), certificate("cc", 300), certificate("dd", 400)]);
        // It uses the second: what was signed later may be on its disk, and what was signed before is not.
        assert!(used(&mut object, "cc") && !used(&mut object, "bb"));
        let entry = Entry::of(&object);
        assert!(!entry.is_good("aa") && !entry.is_good("bb") && entry.is_good("cc") && entry.is_good("dd"));
        assert_eq!(entry.newest, Some(certificate("cc", 300)), "it ends when it ends, and no other");
        assert!(used(&mut object, "dd"));
        let entry = Entry::of(&object);
        assert_eq!((entry.enrolment.as_deref(), entry.newest), (Some("aa"), Some(certificate("dd", 400))));
        super::super::enrolled(&mut object, &certificate("ee", 500), None, "t", 1);
        let entry = Entry::of(&object);
        assert!(entry.enrolment.is_none() && entry.is_good("ee") && !entry.is_good("dd"));
    }

    #[test]
    fn a_node_that_keeps_none_of_many_has_the_newest_ones_and_what_it_uses() {
        let mut object = joined();
        for number in 0..100_u64 {
            renewed(&mut object, &certificate(&format!("{number:02x}"), 1000 + number));
        }
        let entry = Entry::of(&object);
        assert_eq!(entry.next.len(), NEXT_MAX);
        assert!(entry.is_good("aa") && entry.is_good("63") && entry.is_good("5c") && !entry.is_good("5b"));
        assert_eq!(entry.next.last(), Some(&certificate("63", 1099)));
    }

    #[test]
    fn an_object_of_an_elder_release_names_one() {
        let mut object = joined();
        let annotations = object.metadata.annotations.as_mut().unwrap();
        annotations.insert(NEXT_CERTIFICATE_ANNOTATION.to_owned(), "bb".to_owned());
        object.spec.next_not_after = Some(rfc3339(200));
        assert_eq!(Entry::of(&object).next, [certificate("bb", 200)]);
        object.spec.next_not_after = None;
        renewed(&mut object, &certificate("cc", 300));
        let entry = Entry::of(&object);
        assert!(
            entry.next.first().is_some_and(|next| next.not_after_unix > u64::from(u32::MAX)),
            "{entry:?}"
        );
        assert_eq!(entry.next.last(), Some(&certificate("cc", 300)));
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
