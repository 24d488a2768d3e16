//! How a client logs in at MySQL and MariaDB: the server's greeting, the answer to it, and what proves the password. Pure.
//! After <https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html>.

use aws_lc_rs::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;

/// The only version of the protocol that is there.
const VERSION: u8 = 10;
/// 20 bytes: what a server wants to see mixed with the password.
const NONCE: usize = 20;
const LONG_PASSWORD: u32 = 1;
const CONNECT_WITH_DB: u32 = 0x8;
const PROTOCOL_41: u32 = 0x200;
const TRANSACTIONS: u32 = 0x2000;
const SECURE_CONNECTION: u32 = 0x8000;
const PLUGIN_AUTH: u32 = 0x8_0000;
/// What is used here. No statements after statements, no results after results, and no files: a server that asks for one gets none.
const WANTED: u32 =
    LONG_PASSWORD | CONNECT_WITH_DB | PROTOCOL_41 | TRANSACTIONS | SECURE_CONNECTION | PLUGIN_AUTH;
/// Without these nobody logs in; every server of this century has them.
const NEEDED: u32 = CONNECT_WITH_DB | PROTOCOL_41 | SECURE_CONNECTION;
/// 16 MiB, as other clients say: nothing of that size is read or sent here.
const PACKET_CLAIMED: u32 = 16 << 20;
/// `utf8mb4_general_ci`.
const COLLATION: u8 = 45;

/// Who logs in where.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) database: String,
}

/// The ways in which a password is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    Native,
    CachingSha2,
}

impl Proof {
    /// The one of an account that wants this one. The others are named to whoever has to mend it, and nothing is sent.
    pub(crate) fn called(name: &str) -> Result<Self, String> {
        match name {
            "mysql_native_password" => Ok(Proof::Native),
            "caching_sha2_password" => Ok(Proof::CachingSha2),
            other => Err(format!(
                "the account logs in by `{}`, which is not served; identify it by mysql_native_password or \
                 caching_sha2_password",
                other.chars().take(40).collect::<String>().escape_default()
            )),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Proof::Native => "mysql_native_password",
            Proof::CachingSha2 => "caching_sha2_password",
        }
    }

    /// Nothing for no password.
    pub(crate) fn of(self, password: &str, nonce: &[u8]) -> Vec<u8> {
        if password.is_empty() {
            return Vec::new();
        }
        let algorithm = match self {
            Proof::Native => &SHA1_FOR_LEGACY_USE_ONLY,
            Proof::CachingSha2 => &SHA256,
        };
        let once = digest::digest(algorithm, password.as_bytes());
        let twice = digest::digest(algorithm, once.as_ref());
        let mixed = match self {
            Proof::Native => [nonce, twice.as_ref()].concat(),
            Proof::CachingSha2 => [twice.as_ref(), nonce].concat(),
        };
        let mask = digest::digest(algorithm, &mixed);
        once.as_ref().iter().zip(mask.as_ref()).map(|(byte, mask)| byte ^ mask).collect()
    }
}

/// What a server says first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) nonce: Vec<u8>,
    pub(crate) proof: Proof,
    capabilities: u32,
}

impl Greeting {
    pub(crate) fn read(packet: &[u8]) -> Result<Self, String> {
        Self::parsed(packet).ok_or("what answers is no MySQL: it greets otherwise")?
    }

    fn parsed(packet: &[u8]) -> Option<Result<Self, String>> {
        let (&version, rest) = packet.split_first()?;
        if version != VERSION {
            return None;
        }
        let (_, rest) = until_zero(rest)?;
        let (_id, rest) = rest.split_first_chunk::<4>()?;
        let (first, rest) = rest.split_first_chunk::<8>()?;
        let (&[_, low_1, low_2, _, _, _, high_1, high_2, _], rest) = rest.split_first_chunk::<9>()?;
        let capabilities = u32::from_le_bytes([low_1, low_2, high_1, high_2]);
        if capabilities & NEEDED != NEEDED {
            return Some(Err(
                "the server is too old: it does not log in as MySQL 4.1 and later do".to_owned()
            ));
        }
        let (_reserved, rest) = rest.split_first_chunk::<10>()?;
        let (second, rest) = rest.split_at_checked(NONCE - first.len())?;
        // A zero, and then what the server would like best; an account may want another.
        let name = rest.split_first().and_then(|(_, rest)| until_zero(rest)).map(|(name, _)| name);
        let proof = if name == Some(b"caching_sha2_password") { Proof::CachingSha2 } else { Proof::Native };
        Some(Ok(Greeting { nonce: [first, second].concat(), proof, capabilities }))
    }

    /// The packet that answers it.
    pub(crate) fn answer(&self, login: &Login) -> Vec<u8> {
        let capabilities = WANTED & (self.capabilities | LONG_PASSWORD);
        let mut packet = Vec::new();
        packet.extend(capabilities.to_le_bytes());
        packet.extend(PACKET_CLAIMED.to_le_bytes());
        packet.push(COLLATION);
        packet.extend([0; 23]);
        packet.extend(login.user.as_bytes());
        packet.push(0);
        let proof = self.proof.of(&login.password, &self.nonce);
        packet.extend(u8::try_from(proof.len()));
        packet.extend(proof);
        packet.extend(login.database.as_bytes());
        packet.push(0);
        if capabilities & PLUGIN_AUTH != 0 {
            packet.extend(self.proof.name().as_bytes());
            packet.push(0);
        }
        packet
    }
}

/// The other way that a server wants, and its nonce: of a packet after its first byte.
pub(crate) fn other_proof(packet: &[u8]) -> Result<(Proof, Vec<u8>), String> {
    // MySQL before 4.1 names none.
    let (name, nonce) = until_zero(packet).unwrap_or((b"mysql_old_password", &[]));
    let nonce = nonce.strip_suffix(&[0]).unwrap_or(nonce);
    Ok((Proof::called(&String::from_utf8_lossy(name))?, nonce.to_vec()))
}

/// The password for whoever has the private key of this PEM.
pub(crate) fn sealed(password: &str, nonce: &[u8], pem: &[u8]) -> Result<Vec<u8>, String> {
    let wrong = || "the server's public key is none of RSA with 2048 bits or more".to_owned();
    let key = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| wrong())?;
    let key = PublicEncryptingKey::from_der(&key).map_err(|_| wrong())?;
    let key = OaepPublicEncryptingKey::new(key).map_err(|_| wrong())?;
    let mut masked = [password.as_bytes(), &[0]].concat();
    masked.iter_mut().zip(nonce.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    let mut sealed = vec![0; key.ciphertext_size()];
    let done = key.encrypt(&OAEP_SHA1_MGF1SHA1, &masked, &mut sealed, None);
    let length = done.map_err(|_| "PASSWORD is too long for the server's public key")?.len();
    sealed.truncate(length);
    Ok(sealed)
}

/// What is before a zero, and what after it.
fn until_zero(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == 0)?;
    Some((bytes.get(..at)?, bytes.get(at + 1..)?))
}
