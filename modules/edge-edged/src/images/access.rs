//! Who may use an image that is here already (KEP-2535). An image that was pulled with a credential is for pods that
//! have that credential; that it lies on the node gives it to nobody else.
//!
//! The records are the kubelet's: `image_manager/pulling` holds a word per pull that has begun, `image_manager/pulled`
//! how each image was pulled. They outlive a restart. A record that cannot be read counts as none that lets anybody in.
//!
//! What was here before anybody pulled it stays what it is while a pull of its name is under way, and after one that has brought the
//! same: a node that is cut off could not start again what it was preloaded with. A kubelet counts it as pulled from the first try on.
//!
//! What comes while a pull is under way that never says how it ends (edgecore is killed in it) was brought by that pull, or put there by
//! hand. Nobody can tell which, so it is theirs who could have pulled it: the pull's word names its credentials. For a kubelet it is
//! nobody's until a registry is asked, and a node that is cut off can ask none.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use config::edge::ImageVerification;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::disk::beneath::{Access, Folder};
use crate::error::StepError;
use crate::images::reference::Reference;

/// 1 MiB: a longer record is none of ours.
const RECORD_MAX: u64 = 1 << 20;
/// Secrets that are remembered for one name of an image; the oldest go first.
const SECRETS_MAX: usize = 100;
/// So many records are looked at in one go.
const RECORDS_MAX: usize = 1 << 16;
const VERSION: &str = "kubelet.config.k8s.io/v1beta1";

/// A secret with which an image was pulled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SecretUsed {
    pub(crate) uid: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Of the credential in it.
    pub(crate) credential_hash: String,
}

/// Whose an image of one name is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Owners {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kubernetes_secrets: Vec<SecretUsed>,
    /// It was pulled without credentials once.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    node_pods_accessible: bool,
    /// A pull with these may have brought it, or it was put here by hand: see [`Known::Begun`].
    #[serde(skip_serializing_if = "Option::is_none")]
    perhaps_pulled_with: Option<Vec<SecretUsed>>,
}

/// How an image was pulled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    api_version: String,
    kind: String,
    last_updated_time: String,
    image_ref: String,
    /// By the image's name without tag and digest.
    credential_mapping: BTreeMap<String, Owners>,
    /// It was here before it was ever pulled.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    was_preloaded: bool,
}

/// That a pull has begun.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Intent {
    api_version: String,
    kind: String,
    image: String,
    /// What was here under the image's name then, and nobody had pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    preloaded_ref: Option<String>,
    /// The secrets with which the pulls that are under way may bring it, of all of them; empty: anybody could. `None`: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    with: Option<Vec<SecretUsed>>,
}

/// What is known of an image that is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Known {
    /// We have never pulled it.
    Preloaded,
    /// What is known cannot be read, or a pull has begun of which nobody knows with what.
    Unclear,
    /// A pull has begun, perhaps in a run of edgecore before, and its end is not known. It was brought with one of these secrets, or put
    /// here by hand: who has all of them could have pulled it.
    Begun(Vec<SecretUsed>),
    /// We have pulled it.
    Pulled(Record),
}

impl Known {
    fn is_preloaded(&self) -> bool {
        match self {
            Known::Preloaded => true,
            Known::Unclear | Known::Begun(_) => false,
            Known::Pulled(record) => record.was_preloaded,
        }
    }
}

/// When images are checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy<'a> {
    pub(crate) verification: ImageVerification,
    pub(crate) allowlist: &'a [String],
}

/// The repository as registries know it, without tag and digest. A name that cannot be read is its own.
pub(crate) fn repository(image: &str) -> String {
    Reference::parse(image).map_or_else(|_| image.to_owned(), |reference| reference.repository())
}

/// Whether a pod may use an image that is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Its registry has to be asked.
    Refused,
    /// `note`: a Secret of the pod's that is half known, to be remembered as one with which the image was pulled: the same
    /// Secret with another credential, or the same credential in another Secret.
    Allowed { note: Option<SecretUsed> },
}

impl Policy<'_> {
    fn is_checked(&self, image: &str, known: &Known) -> bool {
        match self.verification {
            ImageVerification::NeverVerify => false,
            ImageVerification::AlwaysVerify => true,
            ImageVerification::NeverVerifyPreloadedImages => !known.is_preloaded(),
            ImageVerification::NeverVerifyAllowlistedImages => !self.is_listed(&repository(image)),
        }
    }

    fn is_listed(&self, repository: &str) -> bool {
        self.allowlist.iter().any(|entry| match entry.strip_suffix("/*") {
            Some(path) => repository.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')),
            None => crate::images::access::repository(entry) == repository,
        })
    }

    /// Whether a pod that has `secrets` may use the image without asking its registry.
    pub(crate) fn verdict(&self, image: &str, known: &Known, secrets: &[SecretUsed]) -> Verdict {
        if !self.is_checked(image, known) {
            return Verdict::Allowed { note: None };
        }
        let record = match known {
            Known::Pulled(record) => record,
            Known::Begun(with) => return self.verdict_on_either(with, secrets),
            Known::Preloaded | Known::Unclear => return Verdict::Refused,
        };
        let Some(owners) = record.credential_mapping.get(&repository(image)) else { return Verdict::Refused };
        if owners.node_pods_accessible {
            return Verdict::Allowed { note: None };
        }
        for own in secrets {
            let mut matching = owners.kubernetes_secrets.iter().filter(|used| own.counts_as(used));
            if let Some(first) = matching.next() {
                let whole = std::iter::once(first).chain(matching).any(|used| used == own);
                return Verdict::Allowed { note: (!whole).then(|| own.clone()) };
            }
        }
        let perhaps = owners.perhaps_pulled_with.as_ref();
        perhaps.map_or(Verdict::Refused, |with| self.verdict_on_either(with, secrets))
    }

    /// Of an image that was put here by hand or pulled with one of `with`. Where that alone that it was preloaded gives it to nobody, its
    /// registry has to be asked.
    fn verdict_on_either(&self, with: &[SecretUsed], secrets: &[SecretUsed]) -> Verdict {
        let has = |used: &SecretUsed| secrets.iter().any(|own| own.counts_as(used));
        if self.verification == ImageVerification::NeverVerifyPreloadedImages && with.iter().all(has) {
            Verdict::Allowed { note: None }
        } else {
            Verdict::Refused
        }
    }
}

impl SecretUsed {
    /// Whether it is the same Secret, or has the same credential. A Secret that was changed since is still the one that the image was
    /// pulled with: a node that is cut off cannot ask again.
    fn counts_as(&self, used: &SecretUsed) -> bool {
        let is_same = (&self.uid, &self.namespace, &self.name) == (&used.uid, &used.namespace, &used.name);
        is_same || (!used.credential_hash.is_empty() && self.credential_hash == used.credential_hash)
    }
}

impl Intent {
    /// Also a pull with `with` is under way. Answers whether that is news.
    fn join(&mut self, with: &[SecretUsed]) -> bool {
        let Some(own) = &mut self.with else { return false };
        let before = own.len();
        for secret in with {
            if !own.contains(secret) {
                own.push(secret.clone());
            }
        }
        let has_changed = own.len() != before;
        if own.len() > SECRETS_MAX {
            self.with = None;
        }
        has_changed
    }
}

impl Record {
    fn new(reference: &str) -> Record {
        Record {
            api_version: VERSION.to_owned(),
            kind: "ImagePulledRecord".to_owned(),
            last_updated_time: String::new(),
            image_ref: reference.to_owned(),
            credential_mapping: BTreeMap::new(),
            was_preloaded: false,
        }
    }

    /// The image was pulled as `image` with the secret, or without any.
    fn add(&mut self, image: &str, with: Option<SecretUsed>, time: &str) {
        time.clone_into(&mut self.last_updated_time);
        let owners = self.credential_mapping.entry(repository(image)).or_default();
        match with {
            None => {
                owners.node_pods_accessible = true;
                owners.kubernetes_secrets.clear();
            }
            Some(_) if owners.node_pods_accessible => {}
            Some(secret) => {
                let other = |own: &SecretUsed| {
                    (&own.uid, &own.namespace, &own.name) != (&secret.uid, &secret.namespace, &secret.name)
                };
                owners.kubernetes_secrets.retain(other);
                owners.kubernetes_secrets.push(secret);
                let more = owners.kubernetes_secrets.len().saturating_sub(SECRETS_MAX);
                owners.kubernetes_secrets.drain(..more);
            }
        }
    }
}

/// The records on the disk. Blocks.
pub(crate) struct Records {
    pulling: Folder,
    pulled: Folder,
}

fn file_of(text: &str) -> String {
    format!("sha256-{}", hash(text.as_bytes()))
}

/// What the word of a pull says of `reference`: it was here already when the pull began, and nobody had pulled it, or it came since.
fn while_pulling(intent: &[u8], reference: &str) -> Known {
    match serde_json::from_slice::<Intent>(intent) {
        Ok(intent) if intent.preloaded_ref.as_deref() == Some(reference) => Known::Preloaded,
        Ok(Intent { with: Some(with), .. }) => Known::Begun(with),
        Ok(_) | Err(_) => Known::Unclear,
    }
}

/// SHA-256 in hexadecimal.
pub(crate) fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

impl Records {
    /// Those below `rootDirectory`.
    pub(crate) fn open(root: &Folder) -> Result<Records, StepError> {
        let own = root.make(Path::new("image_manager"), Access::mode(0o700))?;
        let below = |name: &str| own.make(Path::new(name), Access::mode(0o700));
        Ok(Records { pulling: below("pulling")?, pulled: below("pulled")? })
    }

    /// What is known of the image `image`, which the runtime has as `reference`.
    pub(crate) fn known(&self, image: &str, reference: &str) -> Known {
        match self.pulled.read(&PathBuf::from(file_of(reference)), RECORD_MAX) {
            Ok(Some(bytes)) => match serde_json::from_slice::<Record>(&bytes) {
                Ok(record) if record.image_ref == reference => Known::Pulled(record),
                Ok(_) | Err(_) => Known::Unclear,
            },
            Ok(None) => match self.pulling.read(&PathBuf::from(file_of(image)), RECORD_MAX) {
                Ok(None) => Known::Preloaded,
                Ok(Some(intent)) => while_pulling(&intent, reference),
                Err(_) => Known::Unclear,
            },
            Err(_) => Known::Unclear,
        }
    }

    /// Whether a pull was begun of which nobody has said how it ended.
    pub(crate) fn has_begun(&self, image: &str) -> Result<bool, StepError> {
        Ok(self.pulling.kind(&file_of(image))?.is_some())
    }

    /// The images of which a pull was begun before `time`, and nobody has said since how one ended: `most` of them.
    pub(crate) fn begun_before(&self, time: jiff::Timestamp, most: usize) -> Result<Vec<String>, StepError> {
        let mut found = Vec::new();
        for name in self.pulling.names(RECORDS_MAX)? {
            let Some(bytes) = self.pulling.read(Path::new(&name), RECORD_MAX)? else { continue };
            // One that cannot be read lets nobody in.
            let Ok(Intent { image, .. }) = serde_json::from_slice(&bytes) else { continue };
            if self.has_begun_before(&image, time)? {
                found.push(image);
            }
            if found.len() >= most {
                break;
            }
        }
        Ok(found)
    }

    /// The same of one image.
    pub(crate) fn has_begun_before(&self, image: &str, time: jiff::Timestamp) -> Result<bool, StepError> {
        Ok(self.pulling.changed_at(&file_of(image))?.is_some_and(|changed| changed < time))
    }

    /// A pull whose end nobody has noted has ended, and may have brought `reference`: then that stays theirs who could have pulled it,
    /// until a pull says whose.
    pub(crate) fn end_unknown(
        &self,
        image: &str,
        reference: Option<&str>,
        time: &str,
    ) -> Result<(), StepError> {
        if let Some(reference) = reference
            && let Some(with) = match self.known(image, reference) {
                Known::Begun(with) => Some(Some(with)),
                Known::Unclear => Some(None),
                Known::Preloaded | Known::Pulled(_) => None,
            }
        {
            let mut record = Record::new(reference);
            time.clone_into(&mut record.last_updated_time);
            let owners = Owners { perhaps_pulled_with: with, ..Owners::default() };
            record.credential_mapping.insert(repository(image), owners);
            self.put(&self.pulled, &file_of(reference), &record)?;
        }
        self.ended(image)
    }

    /// A pull begins, with these secrets, one of them or none. `here`: what is here under the image's name. While another pull of the
    /// image is under way its word counts, and says from now on that this one is, too.
    pub(crate) fn begin(
        &self,
        image: &str,
        here: Option<&str>,
        with: &[SecretUsed],
    ) -> Result<(), StepError> {
        if let Some(begun) = self.pulling.read(Path::new(&file_of(image)), RECORD_MAX)? {
            // One that cannot be read says nothing of any.
            let Ok(mut intent) = serde_json::from_slice::<Intent>(&begun) else { return Ok(()) };
            return if intent.join(with) {
                self.put(&self.pulling, &file_of(image), &intent)
            } else {
                Ok(())
            };
        }
        let is_preloaded = |reference: &&str| self.known(image, reference) == Known::Preloaded;
        let mut intent = Intent {
            api_version: VERSION.to_owned(),
            kind: "ImagePullIntent".to_owned(),
            image: image.to_owned(),
            preloaded_ref: here.filter(is_preloaded).map(str::to_owned),
            with: Some(Vec::new()),
        };
        intent.join(with);
        self.put(&self.pulling, &file_of(image), &intent)
    }

    /// It has brought `reference`, with the secret or without any.
    pub(crate) fn pulled(
        &self,
        image: &str,
        reference: &str,
        with: Option<SecretUsed>,
        time: &str,
    ) -> Result<(), StepError> {
        let mut record = match self.known(image, reference) {
            Known::Pulled(record) => record,
            Known::Preloaded => Record { was_preloaded: true, ..Record::new(reference) },
            // It is told now how it came.
            Known::Unclear | Known::Begun(_) => Record::new(reference),
        };
        record.add(image, with, time);
        self.put(&self.pulled, &file_of(reference), &record)
    }

    /// No pull of the image is under way any more.
    pub(crate) fn ended(&self, image: &str) -> Result<(), StepError> {
        self.pulling.remove(&PathBuf::from(file_of(image)))
    }

    /// Forgets the images that are not here any more. `kept`: those that are, as the runtime calls them; what was noted since
    /// `began` stays.
    pub(crate) fn prune(&self, kept: &BTreeSet<String>, began: jiff::Timestamp) -> Result<(), StepError> {
        for name in self.pulled.names(RECORDS_MAX)? {
            let at = Path::new(&name);
            let Some(bytes) = self.pulled.read(at, RECORD_MAX)? else { continue };
            // One that cannot be read lets nobody in, and may be of an image that is here.
            let Ok(record) = serde_json::from_slice::<Record>(&bytes) else { continue };
            let is_older = record.last_updated_time.parse::<jiff::Timestamp>().is_ok_and(|time| time < began);
            if is_older && !kept.contains(&record.image_ref) {
                self.pulled.remove(at)?;
            }
        }
        Ok(())
    }

    fn put(&self, folder: &Folder, name: &str, what: &impl Serialize) -> Result<(), StepError> {
        let bytes =
            serde_json::to_vec(what).map_err(|error| StepError::file("write", folder.shown(), &error))?;
        folder.replace(name, &bytes, Access::mode(0o600))
    }
}

#[cfg(test)]
mod tests;
