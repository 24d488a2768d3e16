//! Users and their passwords: mosquitto's password file. Pure, but slow on purpose.
//!
//! Two of mosquitto's forms are read: `$7$` (PBKDF2 with HMAC-SHA512, what mosquitto_passwd 2.0 writes and `edgecore
//! mqtt-password` prints) and `$6$` (one round of SHA-512, its older form). argon2id, which mosquitto 2.1 prefers, is
//! refused by name: one check of it takes more memory (46 MiB) than all of `edgecore` may.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use aws_lc_rs::{constant_time, digest, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::access::FileDefect;
use crate::packet::Password;
use crate::{identity, plan};

/// 1,000,000 rounds: a hash with more would keep a slow processor busy for seconds.
const ROUNDS_MAX: u32 = 1_000_000;
/// 10,000 rounds: a hash with fewer is told of, as whoever reads the file would find a short password soon.
const ROUNDS_WEAK: u32 = 10_000;
/// 50,000 rounds, for hashes of our own: some 50 ms of a small processor, and mosquitto_passwd writes 101.
const ROUNDS: u32 = 50_000;
/// 5 users are named in a sentence.
const NAMED_MAX: usize = 5;
/// 1,024 users.
const USERS: usize = 1024;
/// 64 bytes, as much as SHA-512 gives.
const HASH_BYTES: usize = 64;
/// 256 bytes of salt at most; mosquitto writes 12 or 64.
const SALT_BYTES: usize = 256;

/// How a password is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HashFormat {
    /// `$6$`
    Sha512,
    /// `$7$`
    Pbkdf2(NonZeroU32),
}

impl HashFormat {
    fn rounds(self) -> u32 {
        match self {
            HashFormat::Sha512 => 1,
            HashFormat::Pbkdf2(rounds) => rounds.get(),
        }
    }
}

/// A user's hash.
#[derive(PartialEq, Eq)]
pub(crate) struct PasswordHash {
    form: HashFormat,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hash of {} rounds", self.form.rounds())
    }
}

/// The users of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Users {
    by_name: BTreeMap<String, Arc<PasswordHash>>,
    /// The most rounds of any of them: every check takes as many.
    rounds: u32,
}

/// What a password is held against, without the rest of the file.
#[derive(Debug, Clone)]
pub(crate) struct PasswordCheck {
    /// Of nobody, if there is no such user.
    hash: Option<Arc<PasswordHash>>,
    rounds: u32,
}

impl Users {
    /// Reads a file.
    pub(crate) fn parse(text: &str) -> Result<Self, FileDefect> {
        let mut users = Users::default();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at = |what: &str| FileDefect::new(number, what);
            let (name, hash) = line.split_once(':').ok_or_else(|| at("is not name:hash"))?;
            if let Some(identity::InvalidName(what)) = identity::user_defect(name) {
                return Err(at(what));
            }
            let hash = read(hash).map_err(at)?;
            users.rounds = users.rounds.max(hash.form.rounds());
            if users.by_name.insert(name.to_owned(), Arc::new(hash)).is_some() {
                return Err(at("user is there twice"));
            }
            if users.by_name.len() > USERS {
                return Err(at("more than 1024 users are not taken"));
            }
        }
        Ok(users)
    }

    /// What the password of `name` is to be held against.
    pub(crate) fn check(&self, name: &str) -> PasswordCheck {
        PasswordCheck { hash: self.by_name.get(name).cloned(), rounds: self.rounds.max(1) }
    }

    pub(crate) fn hash(&self, name: &str) -> Option<&Arc<PasswordHash>> {
        self.by_name.get(name)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whose hashes are fast to try passwords against, in the order of their names.
    pub(crate) fn weak(&self) -> Vec<&str> {
        let weak = self.by_name.iter().filter(|(_, hash)| hash.form.rounds() < ROUNDS_WEAK);
        weak.map(|(name, _)| name.as_str()).collect()
    }

    /// Whose hashes are fast to try passwords against, and what to do about it. `None`: nobody's.
    pub(crate) fn weakness(&self) -> Option<String> {
        let weak = self.weak();
        let named: Vec<String> = weak.iter().take(NAMED_MAX).map(|name| format!("`{name}`")).collect();
        let more = match weak.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        (!weak.is_empty()).then(|| {
            format!(
                "hashes of few rounds of {}{more}: whoever reads the file soon finds short passwords; put in place of each line what \
                 `edgecore mqtt-password NAME` prints",
                named.join(", ")
            )
        })
    }
}

impl PasswordCheck {
    /// Whether the password is right, and whose hash said so. Takes the same work for every user of the file, and for a
    /// name that is none.
    pub(crate) fn proves(&self, password: &Password) -> Option<Arc<PasswordHash>> {
        let (done, right) = match &self.hash {
            Some(hash) => (hash.form.rounds(), hash.is_of(password.bytes())),
            None => (0, false),
        };
        if let Some(left) = NonZeroU32::new(self.rounds.saturating_sub(done)) {
            std::hint::black_box(derive(left, b"nobody's salt", password.bytes()));
        }
        self.hash.clone().filter(|_| right)
    }
}

impl PasswordHash {
    fn is_of(&self, password: &[u8]) -> bool {
        let found = match self.form {
            HashFormat::Sha512 => {
                let mut context = digest::Context::new(&digest::SHA512);
                context.update(password);
                context.update(&self.salt);
                context.finish().as_ref().to_vec()
            }
            HashFormat::Pbkdf2(rounds) => derive(rounds, &self.salt, password),
        };
        constant_time::verify_slices_are_equal(&found, &self.hash).is_ok()
    }
}

fn derive(rounds: NonZeroU32, salt: &[u8], password: &[u8]) -> Vec<u8> {
    let mut out = vec![0; HASH_BYTES];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, rounds, salt, password, &mut out);
    out
}

fn read(text: &str) -> Result<PasswordHash, &'static str> {
    let fields: Vec<&str> = text.split('$').collect();
    let (form, salt, hash) = match fields.as_slice() {
        ["", "6", salt, hash] => (HashFormat::Sha512, salt, hash),
        ["", "7", rounds, salt, hash] => {
            let rounds: NonZeroU32 =
                rounds.parse().map_err(|_| "rounds of the hash are no number from 1 on")?;
            if rounds.get() > ROUNDS_MAX {
                return Err("hash has more than 1000000 rounds");
            }
            (HashFormat::Pbkdf2(rounds), salt, hash)
        }
        ["", "argon2id" | "argon2i" | "argon2d", ..] => {
            return Err(
                "argon2 is not taken, for its memory: write the hash with `edgecore mqtt-password` or \
                        `mosquitto_passwd -H sha512-pbkdf2`",
            );
        }
        _ => {
            return Err("is no hash of the forms $6$ and $7$: write it with mosquitto_passwd or \
                        `edgecore mqtt-password`");
        }
    };
    let salt = STANDARD.decode(salt).map_err(|_| "salt of the hash is not base64")?;
    let hash = STANDARD.decode(hash).map_err(|_| "hash is not base64")?;
    if salt.is_empty() || salt.len() > SALT_BYTES || hash.len() != HASH_BYTES {
        return Err("hash is not 64 bytes long, or its salt not 1 to 256");
    }
    Ok(PasswordHash { form, salt, hash })
}

/// A line of a password file.
///
/// # Errors
/// What is wrong with the name or the password.
pub fn line(name: &str, password: &[u8], salt: [u8; 16]) -> Result<String, &'static str> {
    if name.contains(':') {
        return Err("user name has a colon, which ends it in the file");
    }
    if let Some(identity::InvalidName(what)) = identity::user_defect(name) {
        return Err(what);
    }
    if password.is_empty() || password.len() > plan::PASSWORD_BYTES {
        return Err("password is empty or longer than 1024 bytes");
    }
    let Some(rounds) = NonZeroU32::new(ROUNDS) else { return Err("no rounds") };
    let hash = STANDARD.encode(derive(rounds, &salt, password));
    Ok(format!("{name}:$7${ROUNDS}${}${hash}", STANDARD.encode(salt)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As mosquitto_passwd 2.0.11 wrote them, for `s3cret pässword` and, in the older form, `beta`.
    const FILE: &str = "# users\nplc:$7$101$J+sztkJ5MvbqwC5W$UGUZDqcVOj4sK9We0X2dVki1YjbCX2KWfG8k7uys3qan7T1E9J2/7CiUlw6SfCrnclfB8oimzqeG7ra396WFKg==\r\n\nplc3:$6$+oLQkeWk8BBZlKIj$f83jXf1Zo3w2/jZTJ8tU/0TclFawEXswGgpGtNSFOY3r6KxIES8fG3K7ZfpuG/l2uPkbTY3EqBvR9AokkcN5Gw==\n";

    fn proves(users: &Users, name: &str, password: &[u8]) -> bool {
        users.check(name).proves(&Password::new(password)).is_some()
    }

    #[test]
    fn a_file_of_mosquitto_passwd_is_read_as_it_is() {
        let users = Users::parse(FILE).unwrap();
        assert_eq!((users.len(), users.weak()), (2, vec!["plc", "plc3"]));
        assert!(proves(&users, "plc", "s3cret pässword".as_bytes()) && proves(&users, "plc3", b"beta"));
        for (name, password) in [
            ("plc", "beta"),
            ("plc3", "s3cret pässword"),
            ("plc", ""),
            ("plc", "s3cret p"),
            ("PLC", "beta"),
            ("", "beta"),
        ] {
            assert!(!proves(&users, name, password.as_bytes()), "{name} {password}");
        }
        assert!(!format!("{users:?}").contains("UGUZ"));
    }

    #[test]
    fn passwords_are_any_bytes() {
        let bytes = b"\xff\0A";
        let file = "a:$7$101$MDEyMzQ1Njc4OWFi$IvdR+MWg8AqA9yC9DcUXPDs8w4F4sPg693wrIm8qj68HuEDWGl5Dz1NVN6J+WM6cPC+NF6MMjbeTA+R/aCzG2A==\n\
                    b:$6$MDEyMzQ1Njc4OWFi$2MqpjX/ZElHApo+XVvMwONo0VPO2FiN/REStMKVr9Zs0mkXSMfIid3Td14EiYl/AKqWhRlNbRnFXTvkmVvKsOA==";
        let users = Users::parse(file).unwrap();
        assert!(proves(&users, "a", bytes) && proves(&users, "b", bytes) && !proves(&users, "a", b"\xff"));
    }

    #[test]
    fn every_check_takes_the_rounds_of_the_slowest_user() {
        let slow = line("slow", b"x", [7; 16]).unwrap();
        let users = Users::parse(&format!("{FILE}{slow}")).unwrap();
        assert!(proves(&users, "slow", b"x") && !proves(&users, "slow", b"y"));
        assert_eq!(users.weak(), ["plc", "plc3"]);
        for name in ["plc", "plc3", "slow", "nobody"] {
            assert_eq!(users.check(name).rounds, ROUNDS, "{name}");
        }
        assert_eq!(users.check("nobody").hash, None);
    }

    #[test]
    fn who_has_a_weak_hash_is_named_with_the_cure() {
        let good = line("good", b"x", [7; 16]).unwrap();
        assert_eq!(Users::parse(&good).unwrap().weakness(), None);
        let told = Users::parse(&format!("{FILE}{good}")).unwrap().weakness().unwrap();
        assert!(
            told.contains("of `plc`, `plc3`: ") && told.contains("`edgecore mqtt-password NAME`"),
            "{told}"
        );
        let (_, weak) = FILE.lines().nth(1).unwrap().split_once(':').unwrap();
        let many: String = (1..=8).map(|n| format!("u{n}:{weak}\n")).collect();
        let told = Users::parse(&many).unwrap().weakness().unwrap();
        assert!(told.contains("`u5` and 3 more: ") && !told.contains("u6"), "{told}");
    }

    #[test]
    fn a_mistake_is_named_by_its_line_and_shows_no_hash() {
        let good = line("good", b"x", [7; 16]).unwrap();
        let hash = good.split_once(':').unwrap().1;
        for (bad, what) in [
            ("plc".to_owned(), "name:hash"),
            (format!(":{hash}"), "user name is empty"),
            (format!("a/b:{hash}"), "user name has one of"),
            (format!("edgecore:{hash}"), "reserved"),
            (format!("good:{hash}"), "twice"),
            ("a:secret".to_owned(), "no hash of the forms"),
            ("a:".to_owned(), "no hash of the forms"),
            ("a:$argon2id$v=19$m=47104,t=1,p=1$c2FsdA$aGFzaA".to_owned(), "argon2"),
            ("a:$7$0$c2FsdA==$aGFzaA==".to_owned(), "rounds"),
            ("a:$7$-1$c2FsdA==$aGFzaA==".to_owned(), "rounds"),
            ("a:$7$1000001$c2FsdA==$aGFzaA==".to_owned(), "1000000 rounds"),
            ("a:$7$101$c2Fsd$aGFzaA==".to_owned(), "base64"),
            ("a:$7$101$c2FsdA==$aGFzaA==".to_owned(), "64 bytes"),
            ("a:$6$$aGFzaA==".to_owned(), "64 bytes"),
        ] {
            let defect = Users::parse(&format!("# one\n{good}\n{bad}\n")).unwrap_err();
            assert!(defect.line == 3 && defect.what.contains(what), "{bad}: {defect:?}");
            assert!(!defect.what.contains("secret"), "{defect:?}");
        }
        let many: String = (0..=USERS).map(|n| format!("u{n}:{hash}\n")).collect();
        assert_eq!(Users::parse(&many).unwrap_err().line, USERS + 1);
        for (name, password) in [("a:b", "x"), ("", "x"), ("a", "")] {
            assert!(line(name, password.as_bytes(), [0; 16]).is_err());
        }
    }
}
