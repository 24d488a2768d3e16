use super::*;

fn secret(name: &str, hash: &str) -> SecretUsed {
    SecretUsed {
        uid: format!("uid-{name}"),
        namespace: "default".to_owned(),
        name: name.to_owned(),
        credential_hash: hash.to_owned(),
    }
}

fn policy(verification: ImageVerification) -> Policy<'static> {
    Policy { verification, allowlist: &[] }
}

impl Policy<'_> {
    fn allows(&self, image: &str, known: &Known, secrets: &[SecretUsed]) -> bool {
        self.verdict(image, known, secrets) != Verdict::Refused
    }
}

const PRELOADED_FREE: ImageVerification = ImageVerification::NeverVerifyPreloadedImages;

#[test]
fn an_image_goes_to_those_who_could_pull_it_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let root = Folder::root(dir.path()).unwrap();
    let (image, reference) = ("r.example/team/x:1", "sha256:aa");
    let policy = policy(PRELOADED_FREE);
    let known = |image: &str| Records::open(&root).unwrap().known(image, reference);
    assert_eq!(known(image), Known::Preloaded);
    assert!(policy.allows(image, &known(image), &[]));
    Records::open(&root).unwrap().begin(image, None, &[secret("a", "1")]).unwrap();
    // A loss of power in a pull: it came with that Secret, or by hand.
    assert!(
        !policy.allows(image, &known(image), &[])
            && !policy.allows(image, &known(image), &[secret("b", "2")])
    );
    assert!(policy.allows(image, &known(image), &[secret("a", "1")]));
    Records::open(&root).unwrap().pulled(image, reference, Some(secret("a", "1")), "t").unwrap();
    let after = known(image);
    assert!(!policy.allows(image, &after, &[]), "no secret");
    assert!(!policy.allows(image, &after, &[secret("b", "2")]), "another's");
    assert!(policy.allows(image, &after, &[secret("a", "9")]), "the same secret, changed since");
    assert!(policy.allows(image, &after, &[secret("b", "1")]), "the same credential");
    // What is half known is remembered.
    let changed = secret("a", "9");
    let verdict = policy.verdict(image, &after, std::slice::from_ref(&changed));
    assert_eq!(verdict, Verdict::Allowed { note: Some(changed) });
    let whole = policy.verdict(image, &after, &[secret("a", "1")]);
    assert_eq!(whole, Verdict::Allowed { note: None });
    // The same content under another name is another image.
    assert!(!policy.allows("other.example/x:1", &known("other.example/x:1"), &[secret("a", "1")]));
    Records::open(&root).unwrap().pulled(image, reference, None, "t").unwrap();
    assert!(policy.allows(image, &known(image), &[]), "pulled without any: everybody's");
}

/// The pull of somebody with a Secret was cut off by the end of edgecore, and that of somebody without one has failed since.
#[test]
fn what_a_pull_brought_whose_end_nobody_noted_is_theirs_who_could_pull_it() {
    let dir = tempfile::tempdir().unwrap();
    let root = Folder::root(dir.path()).unwrap();
    let records = Records::open(&root).unwrap();
    let (image, reference) = ("r.example/team/x:1", "sha256:aa");
    records.begin(image, None, &[secret("a", "1")]).unwrap();
    assert!(records.has_begun(image).unwrap());
    records.end_unknown(image, Some(reference), "2026-01-01T00:00:00Z").unwrap();
    records.begin(image, Some(reference), &[]).unwrap();
    records.ended(image).unwrap();
    assert!(!records.has_begun(image).unwrap());
    let known = records.known(image, reference);
    assert!(!policy(PRELOADED_FREE).allows(image, &known, &[]), "{known:?}");
    assert!(!policy(PRELOADED_FREE).allows(image, &known, &[secret("b", "2")]));
    assert!(policy(PRELOADED_FREE).allows(image, &known, &[secret("a", "1")]));
    assert!(
        !policy(ImageVerification::AlwaysVerify).allows(image, &known, &[secret("a", "1")]),
        "nobody has asked"
    );
    // One that was noted stays what it is.
    records.begin(image, Some(reference), &[]).unwrap();
    records.pulled(image, reference, Some(secret("a", "1")), "t").unwrap();
    records.end_unknown(image, Some(reference), "t").unwrap();
    let known = records.known(image, reference);
    assert!(policy(PRELOADED_FREE).allows(image, &known, &[secret("a", "1")]));
    assert!(!policy(PRELOADED_FREE).allows(image, &known, &[]), "{known:?}");
}

#[test]
fn what_is_loaded_by_hand_while_it_is_pulled_is_theirs_who_could_pull_it() {
    let dir = tempfile::tempdir().unwrap();
    let root = Folder::root(dir.path()).unwrap();
    let records = Records::open(&root).unwrap();
    let (image, loaded) = ("r.example/team/x:1", "sha256:aa");
    let (a, b) = (secret("a", "1"), secret("b", "2"));
    let free = policy(PRELOADED_FREE);
    let allows = |secrets: &[SecretUsed]| free.allows(image, &records.known(image, loaded), secrets);
    // Nobody needs anything for this pull.
    records.begin(image, None, &[]).unwrap();
    assert!(allows(&[]));
    let listed = Policy { verification: ImageVerification::NeverVerifyAllowlistedImages, allowlist: &[] };
    assert!(
        !listed.allows(image, &records.known(image, loaded), &[]),
        "that it was preloaded gives it to nobody"
    );
    // Another one comes beside it that tries two: either may have brought it.
    records.begin(image, None, &[a.clone(), b.clone()]).unwrap();
    assert!(!allows(&[]) && !allows(std::slice::from_ref(&a)) && !allows(std::slice::from_ref(&b)));
    assert!(allows(&[b.clone(), a.clone()]));
    // Edgecore is killed; the next pull notes what is known, and fails.
    records.end_unknown(image, Some(loaded), "t").unwrap();
    records.begin(image, Some(loaded), &[]).unwrap();
    assert!(!allows(&[]) && allows(&[a.clone(), b.clone()]));
    records.ended(image).unwrap();
    assert!(!allows(&[]) && !allows(std::slice::from_ref(&b)) && allows(&[a.clone(), b.clone()]));
    // One that succeeds says whose it is.
    records.begin(image, Some(loaded), std::slice::from_ref(&b)).unwrap();
    records.pulled(image, loaded, Some(b.clone()), "t").unwrap();
    records.ended(image).unwrap();
    assert!(allows(std::slice::from_ref(&b)) && !allows(std::slice::from_ref(&a)) && !allows(&[]));
    // What a pull of nobody's brings in the moment before it is noted is everybody's, and then that is noted.
    let other = "r.example/y:1";
    records.begin(other, None, &[]).unwrap();
    records.pulled(other, "sha256:bb", Some(a.clone()), "t").unwrap();
    assert!(!free.allows(other, &records.known(other, "sha256:bb"), &[]), "what was noted counts");
}

/// A word as an earlier edgecore wrote it, or a kubelet.
#[test]
fn a_pull_of_which_nobody_knows_with_what_lets_nobody_in() {
    let dir = tempfile::tempdir().unwrap();
    let root = Folder::root(dir.path()).unwrap();
    let records = Records::open(&root).unwrap();
    let image = "r.example/team/x:1";
    let word = format!(r#"{{"apiVersion":"{VERSION}","kind":"ImagePullIntent","image":"{image}"}}"#);
    std::fs::write(dir.path().join("image_manager/pulling").join(file_of(image)), word).unwrap();
    assert_eq!(records.known(image, "sha256:aa"), Known::Unclear);
    records.begin(image, None, &[]).unwrap();
    assert_eq!(records.known(image, "sha256:aa"), Known::Unclear, "another pull makes it no clearer");
    records.end_unknown(image, Some("sha256:aa"), "t").unwrap();
    assert!(!policy(PRELOADED_FREE).allows(image, &records.known(image, "sha256:aa"), &[]));
    // More secrets than are kept are none that are known.
    let many: Vec<SecretUsed> =
        (0..=SECRETS_MAX).map(|at| secret(&at.to_string(), &at.to_string())).collect();
    records.begin("y:1", None, &many).unwrap();
    assert_eq!(records.known("y:1", "sha256:bb"), Known::Unclear);
}

#[test]
fn what_was_here_before_stays_what_it_is_whatever_becomes_of_a_pull_of_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let root = Folder::root(dir.path()).unwrap();
    let records = Records::open(&root).unwrap();
    let (image, here, newer) = ("r.example/team/x:1", "sha256:aa", "sha256:bb");
    let is_free =
        |reference: &str| policy(PRELOADED_FREE).allows(image, &records.known(image, reference), &[]);
    records.begin(image, Some(here), &[secret("a", "1")]).unwrap();
    assert!(is_free(here) && !is_free(newer), "while a pull is under way");
    // Another begins beside it when something new may be here already.
    records.begin(image, Some(newer), &[]).unwrap();
    assert!(is_free(here) && !is_free(newer));
    // It fails; or edgecore is killed in it, and the next one finds its word.
    records.ended(image).unwrap();
    assert!(is_free(here));
    records.begin(image, Some(here), &[secret("a", "1")]).unwrap();
    records.end_unknown(image, Some(here), "t").unwrap();
    assert_eq!(records.known(image, here), Known::Preloaded);
    // It brings the same for somebody with a Secret. Who has every image checked is told whose it is.
    records.begin(image, Some(here), &[secret("a", "1")]).unwrap();
    records.pulled(image, here, Some(secret("a", "1")), "t").unwrap();
    records.ended(image).unwrap();
    assert!(is_free(here));
    let known = records.known(image, here);
    let always = policy(ImageVerification::AlwaysVerify);
    assert!(!always.allows(image, &known, &[]) && always.allows(image, &known, &[secret("a", "1")]));
    // It brings another one: that is theirs who could pull it.
    records.begin(image, Some(here), &[secret("a", "1")]).unwrap();
    records.pulled(image, newer, Some(secret("a", "1")), "t").unwrap();
    records.ended(image).unwrap();
    assert!(is_free(here) && !is_free(newer));
}

#[test]
fn a_record_that_cannot_be_read_lets_nobody_in() {
    let dir = tempfile::tempdir().unwrap();
    let root = Folder::root(dir.path()).unwrap();
    let records = Records::open(&root).unwrap();
    std::fs::write(dir.path().join("image_manager/pulled").join(file_of("sha256:aa")), "{").unwrap();
    let known = records.known("x:1", "sha256:aa");
    assert_eq!(known, Known::Unclear);
    assert!(!policy(PRELOADED_FREE).allows("x:1", &known, &[]));
    assert!(policy(ImageVerification::NeverVerify).allows("x:1", &known, &[]));
    // A link that stands in a record's place is none.
    records.pulled("y:1", "sha256:bb", None, "t").unwrap();
    let path = dir.path().join("image_manager/pulled").join(file_of("sha256:bb"));
    std::fs::rename(&path, dir.path().join("moved")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("moved"), &path).unwrap();
    assert_ne!(records.known("y:1", "sha256:bb"), Known::Pulled(Record::new("sha256:bb")));
}

#[test]
fn the_policies_differ_in_what_they_check() {
    let list = ["busybox".to_owned(), "r.example/free/*".to_owned()];
    let listed = Policy { verification: ImageVerification::NeverVerifyAllowlistedImages, allowlist: &list };
    for (image, free) in [
        ("busybox:1", true),
        ("docker.io/library/busybox:2", true),
        ("r.example/free/x:1", true),
        ("r.example/freedom:1", false),
        ("r.example/free:1", false),
    ] {
        assert_eq!(listed.allows(image, &Known::Preloaded, &[]), free, "{image}");
    }
    assert!(!policy(ImageVerification::AlwaysVerify).allows("x:1", &Known::Preloaded, &[]));
    assert_eq!(repository("r:5000/x:1"), "r:5000/x");
    assert_eq!(repository("team/x"), "docker.io/team/x");
}

#[test]
fn an_image_that_is_gone_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let root = Folder::root(dir.path()).unwrap();
    let records = Records::open(&root).unwrap();
    for (reference, time) in
        [("here", "2026-01-01T00:00:00Z"), ("gone", "2026-01-01T00:00:00Z"), ("new", "2026-01-03T00:00:00Z")]
    {
        records.pulled("r.example/x:1", reference, None, time).unwrap();
    }
    let kept = BTreeSet::from(["here".to_owned()]);
    records.prune(&kept, "2026-01-02T00:00:00Z".parse().unwrap()).unwrap();
    let known = |reference: &str| records.known("r.example/x:1", reference) != Known::Preloaded;
    assert_eq!((known("here"), known("gone"), known("new")), (true, false, true));
}

#[test]
fn pulls_that_were_broken_off_are_found_when_they_are_old() {
    let dir = tempfile::tempdir().unwrap();
    let root = Folder::root(dir.path()).unwrap();
    let records = Records::open(&root).unwrap();
    for image in ["r.example/x:1", "r.example/y:1"] {
        records.begin(image, None, &[secret("a", "1")]).unwrap();
    }
    records.ended("r.example/y:1").unwrap();
    let now = jiff::Timestamp::now();
    let found =
        |seconds: i64| records.begun_before(now + jiff::SignedDuration::from_secs(seconds), 9).unwrap();
    assert_eq!((found(-60), found(60)), (vec![], vec!["r.example/x:1".to_owned()]));
    // It has brought nothing, and no word of it stays; what is loaded by hand later is no pull's.
    records.end_unknown("r.example/x:1", None, "t").unwrap();
    assert_eq!(found(60), [""; 0]);
    assert_eq!(records.known("r.example/x:1", "sha256:aa"), Known::Preloaded);
}

#[test]
fn secrets_are_remembered_within_a_bound() {
    let mut record = Record::new("r");
    for at in 0..150 {
        record.add("x", Some(secret(&at.to_string(), &at.to_string())), "t");
    }
    record.add("x", Some(secret("149", "new")), "t");
    let owners = &record.credential_mapping["docker.io/library/x"];
    assert_eq!(owners.kubernetes_secrets.len(), SECRETS_MAX);
    assert_eq!(owners.kubernetes_secrets.last().unwrap().credential_hash, "new");
}
