//! Where a server is, how what is said to it is secured, and who says it.

use std::path::PathBuf;
use std::time::Duration;

use framework::{InvalidSetting, Secret, Settings};
use opcua_client::transport::TcpConnector;
use opcua_crypto::SecurityPolicy;
use opcua_types::MessageSecurityMode;

/// 10 s for an answer, unless `timeout` says otherwise.
const TIMEOUT: i64 = 10;
/// 300 s for an answer at the most.
const TIMEOUT_MAX: i64 = 300;
/// What stands before the name in the URI of a security policy (Part 7).
const POLICY_URI: &str = "http://opcfoundation.org/UA/SecurityPolicy#";
/// The policies by their names in files; the last two rest on SHA-1 and are withdrawn.
const POLICIES: [(&str, SecurityPolicy); 6] = [
    ("None", SecurityPolicy::None),
    ("Basic256Sha256", SecurityPolicy::Basic256Sha256),
    ("Aes128Sha256RsaOaep", SecurityPolicy::Aes128Sha256RsaOaep),
    ("Aes256Sha256RsaPss", SecurityPolicy::Aes256Sha256RsaPss),
    ("Basic128Rsa15", SecurityPolicy::Basic128Rsa15),
    ("Basic256", SecurityPolicy::Basic256),
];
/// The modes by their names in files.
const MODES: [(&str, MessageSecurityMode); 3] = [
    ("None", MessageSecurityMode::None),
    ("Sign", MessageSecurityMode::Sign),
    ("SignAndEncrypt", MessageSecurityMode::SignAndEncrypt),
];

/// Where a server is.
#[derive(Debug, Clone, PartialEq)]
pub struct Address {
    /// `opc.tcp://HOST:PORT/PATH`.
    pub url: String,
    /// Which algorithms secure the channel.
    pub policy: SecurityPolicy,
    /// What they do: nothing, sign, or sign and encrypt.
    pub mode: MessageSecurityMode,
    /// Who we are to the server.
    pub login: Login,
    /// Our certificate and its key, as files. None: one that the mapper has made for itself.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Files of certificates, and folders of them, that the server's has to be among, beside those that are trusted for all.
    pub trusted: Vec<PathBuf>,
    /// The server's certificate is not looked at, and a password may be sent in the clear.
    pub is_insecure: bool,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// Who we are to a server.
#[derive(Debug, Clone, PartialEq)]
pub enum Login {
    /// Nobody, or whoever our certificate says if the server takes nobody.
    Any,
    /// A user.
    User(String, Secret),
}

impl Address {
    /// Of its server: a name or an address.
    pub(crate) fn host(&self) -> &str {
        let place = self.url.strip_prefix("opc.tcp://").unwrap_or(&self.url);
        match place.strip_prefix('[') {
            Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
            None => place.split([':', '/', '?']).next().unwrap_or_default(),
        }
    }

    /// From `protocol.configData`, in KubeEdge's keys and ours.
    ///
    /// # Errors
    /// With the key and the cure.
    pub fn read(settings: &Settings) -> Result<Self, InvalidSetting> {
        let url = settings
            .text("url")?
            .ok_or_else(|| InvalidSetting::new("setting `url` is missing; write opc.tcp://HOST:PORT/PATH"))?;
        let url = url.trim().to_owned();
        let is_somewhere = url
            .strip_prefix("opc.tcp://")
            .is_some_and(|place| !place.is_empty() && !place.starts_with([':', '/']) && !place.contains('@'));
        if !is_somewhere || TcpConnector::new(&url).is_err() {
            return Err(InvalidSetting::new(format!(
                "setting `url` is `{url}`; write opc.tcp://HOST:PORT/PATH"
            )));
        }
        let is_insecure = settings.flag("insecure")?;
        let (policy, mode) = security(settings, is_insecure)?;
        let login = login(settings)?;
        if matches!(login, Login::User(..)) && policy == SecurityPolicy::None && !is_insecure {
            return Err(InvalidSetting::new(
                "with `securityPolicy` None the password would go to whoever answers; write Basic256Sha256, or `insecure: true` \
                 where that is what you want",
            ));
        }
        Ok(Address {
            url,
            policy,
            mode,
            login,
            certificate: certificate(settings)?,
            trusted: ["trustList", "remoteCertificate"]
                .into_iter()
                .filter_map(|key| settings.text(key).transpose())
                .map(|file| file.map(PathBuf::from))
                .collect::<Result<_, _>>()?,
            is_insecure,
            timeout: timeout(settings)?,
        })
    }
}

fn security(
    settings: &Settings,
    is_insecure: bool,
) -> Result<(SecurityPolicy, MessageSecurityMode), InvalidSetting> {
    let policy = match settings.text("securityPolicy")? {
        None => SecurityPolicy::None,
        Some(text) => chosen("securityPolicy", text.trim().trim_start_matches(POLICY_URI), &POLICIES)?,
    };
    let is_none = policy == SecurityPolicy::None;
    let mode = match settings.text("securityMode")? {
        None if is_none => MessageSecurityMode::None,
        None => MessageSecurityMode::SignAndEncrypt,
        Some(text) => chosen("securityMode", text.trim(), &MODES)?,
    };
    if is_none != (mode == MessageSecurityMode::None) {
        return Err(InvalidSetting::new(
            "`securityPolicy` and `securityMode` are None both or not at all; write Basic256Sha256 and SignAndEncrypt, say",
        ));
    }
    if policy.is_deprecated() && !is_insecure {
        return Err(InvalidSetting::new(format!(
            "setting `securityPolicy` is {policy}, which rests on SHA-1 and is withdrawn; write Basic256Sha256, or `insecure: true` \
             for a server that has nothing else"
        )));
    }
    Ok((policy, mode))
}

/// One of several, in any case and with or without the underscores that the URIs have.
fn chosen<T: Copy>(key: &str, text: &str, of: &[(&str, T)]) -> Result<T, InvalidSetting> {
    let plain = text.replace(['_', ' '], "");
    let found = of.iter().find(|(name, _)| name.eq_ignore_ascii_case(&plain));
    found.map(|(_, one)| *one).ok_or_else(|| {
        let names: Vec<&str> = of.iter().map(|(name, _)| *name).collect();
        InvalidSetting::new(format!("setting `{key}` is `{text}`; write {}", names.join(", ")))
    })
}

fn login(settings: &Settings) -> Result<Login, InvalidSetting> {
    let user = settings.text("userName")?;
    let (given, file) = (settings.text("password")?, settings.text("passwordFile")?);
    if given.is_some() && file.is_some() {
        return Err(InvalidSetting::new("settings `password` and `passwordFile` are both there; remove one"));
    }
    let secret = file.map(|file| Secret::File(file.into())).or(given.map(Secret::Given));
    match (user, secret) {
        (Some(user), secret) => Ok(Login::User(user, secret.unwrap_or(Secret::Given(String::new())))),
        (None, None) => Ok(Login::Any),
        (None, Some(_)) => Err(InvalidSetting::new("setting `userName` is missing, and a password is there")),
    }
}

fn certificate(settings: &Settings) -> Result<Option<(PathBuf, PathBuf)>, InvalidSetting> {
    match (settings.text("certificate")?, settings.text("privateKey")?) {
        (Some(certificate), Some(key)) => Ok(Some((certificate.into(), key.into()))),
        (None, None) => Ok(None),
        _ => Err(InvalidSetting::new(
            "settings `certificate` and `privateKey` belong together; write both files, or none for a certificate that the mapper \
             makes for itself",
        )),
    }
}

fn timeout(settings: &Settings) -> Result<Duration, InvalidSetting> {
    settings.whole_within("timeout", TIMEOUT, 1..=TIMEOUT_MAX).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use framework::Scalar;

    fn read(pairs: &[(&str, &str)]) -> Result<Address, String> {
        let pairs = pairs.iter().map(|(key, value)| (*key, Scalar::Text((*value).to_owned())));
        let settings = Settings::from_pairs(pairs);
        let address = Address::read(&settings).map_err(|refusal| refusal.to_string())?;
        assert_eq!(settings.unread_keys(), [] as [String; 0]);
        Ok(address)
    }

    const URL: (&str, &str) = ("URL", "opc.tcp://plc:4840/x");

    #[test]
    fn the_host_of_a_server_is_a_name_or_an_address() {
        for (url, host) in [
            ("opc.tcp://plc", "plc"),
            ("opc.tcp://plc.example:4840/x:y", "plc.example"),
            ("opc.tcp://192.0.2.1/x", "192.0.2.1"),
            ("opc.tcp://[2001:db8::1]:4840", "2001:db8::1"),
        ] {
            assert_eq!(read(&[("url", url)]).unwrap().host(), host);
        }
    }

    #[test]
    fn kubeedges_keys_are_read() {
        let plain =
            read(&[URL, ("securityPolicy", "None"), ("securityMode", "None"), ("timeout", "5")]).unwrap();
        assert_eq!((plain.policy, plain.mode), (SecurityPolicy::None, MessageSecurityMode::None));
        assert_eq!((plain.login, plain.timeout), (Login::Any, Duration::from_secs(5)));
        let secure = read(&[
            URL,
            ("securityPolicy", "http://opcfoundation.org/UA/SecurityPolicy#Aes256_Sha256_RsaPss"),
            ("userName", "op"),
            ("password", "hidden"),
            ("certificate", "/c.pem"),
            ("privateKey", "/k.pem"),
            ("remoteCertificate", "/server.der"),
        ])
        .unwrap();
        assert_eq!(secure.policy, SecurityPolicy::Aes256Sha256RsaPss);
        assert_eq!(secure.mode, MessageSecurityMode::SignAndEncrypt, "what a policy is for");
        assert_eq!(secure.trusted, [PathBuf::from("/server.der")]);
        assert!(!format!("{secure:?}").contains("hidden"));
    }

    #[test]
    fn what_would_be_unsafe_or_wrong_is_refused_with_the_cure() {
        let user = [("userName", "op"), ("password", "p")];
        for (pairs, said) in [
            (vec![], "`url` is missing"),
            (vec![("url", "http://plc")], "opc.tcp://HOST"),
            (vec![("url", "opc.tcp://")], "opc.tcp://HOST"),
            (vec![("url", "opc.tcp://op:p@plc:4840")], "opc.tcp://HOST"),
            (vec![URL, ("securityPolicy", "Best")], "write None, Basic256Sha256"),
            (vec![URL, ("securityMode", "Sign")], "None both or not at all"),
            (vec![URL, ("securityPolicy", "Basic256Sha256"), ("securityMode", "None")], "None both"),
            (vec![URL, ("securityPolicy", "Basic256")], "SHA-1"),
            (vec![URL, user[0], user[1]], "whoever answers"),
            (vec![URL, user[1]], "`userName` is missing"),
            (vec![URL, ("certificate", "/c.pem")], "belong together"),
            (vec![URL, ("timeout", "0")], "`timeout`"),
            (vec![URL, ("password", "p"), ("passwordFile", "/p")], "remove one"),
        ] {
            let refusal = read(&pairs).unwrap_err();
            assert!(refusal.contains(said), "{refusal}");
        }
        read(&[URL, user[0], user[1], ("insecure", "true")]).unwrap();
        read(&[URL, ("securityPolicy", "Basic128Rsa15"), ("insecure", "true")]).unwrap();
    }
}
