//! Whether a client that is not here could connect now: what it has left to be said is said for no other. Pure.

use std::sync::Arc;

use crate::access::{Access, AuthMethod};
use crate::identity;
use crate::peer::Chain;
use crate::session::ConnectInfo;
use crate::tls::Tls;

/// What is said of who came without one.
const WANTS_CERTIFICATES: &str = "its client has no certificate, which every listener wants now";

/// What proved who a client is, as far as it can be looked at again without the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Nothing: it is anonymous.
    None,
    /// A password.
    Password,
    /// A certificate.
    Certificate(Chain),
}

impl Proof {
    /// Of a client that has come.
    pub(crate) fn of(connect_info: &ConnectInfo) -> Self {
        match connect_info.auth_method {
            AuthMethod::None => Proof::None,
            AuthMethod::Password(_) | AuthMethod::Restored => Proof::Password,
            AuthMethod::Certificate => {
                let certified = connect_info.peer.certified.as_ref();
                Proof::Certificate(
                    certified.map(|certified| Arc::clone(&certified.chain)).unwrap_or_default(),
                )
            }
        }
    }
}

/// Whether a client could connect now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Could,
    /// A file that says so has not been understood yet.
    Unknown,
    CouldNot(&'static str),
}

impl Access {
    /// Whether a client of that name, which has proved who it is like that before, could connect now, and what it may do is known.
    pub(crate) fn judge(&self, client: &str, proof: &Proof, tls: &Tls) -> Verdict {
        let verdict = match (proof, identity::parts(client).0) {
            (Proof::Certificate(chain), Some(_)) => match tls.trusts(chain) {
                None => Verdict::Unknown,
                Some(true) => Verdict::Could,
                Some(false) => Verdict::CouldNot("its client's certificate is not trusted any more"),
            },
            (Proof::Password, Some(user)) => self.judge_user(user),
            (Proof::None, None) => self.judge_anonymous(),
            _ => Verdict::CouldNot("its client's name is not of the kind of its login"),
        };
        let has_rights = self.acl_file.is_none() || self.knows_acl.get();
        if verdict == Verdict::Could && !has_rights { Verdict::Unknown } else { verdict }
    }

    /// Whether a client of that name could connect now by what its session's client came with last: a session waits for nobody else. Which
    /// certificate that would be is not asked: a new one of its user has the session, whatever has become of the one before.
    pub(crate) fn judge_session(&self, client: &str, by: &AuthMethod) -> Verdict {
        match (by, identity::parts(client).0) {
            (AuthMethod::Certificate, Some(_)) if self.has_certified_place => Verdict::Could,
            (AuthMethod::Certificate, _) => {
                Verdict::CouldNot("its client has a certificate, and no listener asks for one any more")
            }
            (AuthMethod::Password(_) | AuthMethod::Restored, Some(user)) => self.judge_user(user),
            (AuthMethod::None, None) => self.judge_anonymous(),
            // A row of a release that did not say it.
            (AuthMethod::None, Some(_)) => Verdict::Unknown,
            (AuthMethod::Password(_) | AuthMethod::Restored, None) => {
                Verdict::CouldNot("its client's name is not of the kind of its login")
            }
        }
    }

    fn judge_user(&self, user: &str) -> Verdict {
        match (&self.password_file, &*self.users.borrow()) {
            _ if !self.has_open_place => Verdict::CouldNot(WANTS_CERTIFICATES),
            (None, _) => Verdict::CouldNot("there is no `passwordFile` any more to prove its user by"),
            (Some(_), None) => Verdict::Unknown,
            (Some(_), Some(users)) if users.hash(user).is_some() => Verdict::Could,
            (Some(_), Some(_)) => Verdict::CouldNot("its user is none any more"),
        }
    }

    fn judge_anonymous(&self) -> Verdict {
        if !self.has_open_place {
            Verdict::CouldNot(WANTS_CERTIFICATES)
        } else if self.allow_anonymous {
            Verdict::Could
        } else {
            Verdict::CouldNot("its client is anonymous, and such may not connect any more")
        }
    }
}

#[cfg(test)]
mod tests {
    use config::edge::{EventBus, MqttTls};

    use super::*;
    use crate::access::Users;

    const PLC: &str = "plc:$7$101$J+sztkJ5MvbqwC5W$UGUZDqcVOj4sK9We0X2dVki1YjbCX2KWfG8k7uys3qan7T1E9J2/7CiUlw6SfCrnclfB8oimzqeG7ra396WFKg==";

    /// What is said of an anonymous client, of users `plc` and `gone` by password, and of a user by certificate.
    fn all(settings: &EventBus, reads: impl Fn(&Access)) -> [Verdict; 4] {
        let (access, tls) = (Access::new(settings), Tls::new(&settings.tls));
        reads(&access);
        let certificate = Proof::Certificate(Chain::default());
        [
            access.judge("a", &Proof::None, &tls),
            access.judge("user=plc;a", &Proof::Password, &tls),
            access.judge("user=gone;a", &Proof::Password, &tls),
            access.judge("user=plc;a", &certificate, &tls),
        ]
    }

    #[test]
    fn who_could_connect_is_what_the_settings_and_the_files_say_now() {
        let no = |verdict: Verdict| matches!(verdict, Verdict::CouldNot(_));
        let users = |access: &Access| access.set_users(Users::parse(PLC).unwrap());
        let (plain, file) =
            (EventBus::default(), EventBus { password_file: "/p".into(), ..EventBus::default() });

        let found = all(&plain, |_| {});
        assert!(found[0] == Verdict::Could && found[1..].iter().all(|one| no(*one)), "{found:?}");
        // A file that nobody has understood says nothing about anybody.
        let found = all(&file, |_| {});
        assert_eq!(found[..3], [Verdict::Could, Verdict::Unknown, Verdict::Unknown]);
        let found = all(&file, users);
        assert!(found[..2] == [Verdict::Could; 2] && no(found[2]) && no(found[3]), "{found:?}");
        let found = all(&EventBus { allow_anonymous: false, ..file.clone() }, users);
        assert!(no(found[0]) && found[1] == Verdict::Could, "{found:?}");

        // Rights that are not known are no rights that are lost, and who may not connect is out in any case.
        let with_acl = EventBus { acl_file: "/a".into(), ..file.clone() };
        let found = all(&with_acl, users);
        assert!(found[..2] == [Verdict::Unknown; 2] && no(found[2]), "{found:?}");
        let found = all(&with_acl, |access| {
            users(access);
            access.knows_acl.set(true);
        });
        assert_eq!(found[..2], [Verdict::Could; 2]);

        // Where all listeners want certificates nobody comes without; the CAs have not been read.
        let tls = MqttTls { enable: true, client_ca_file: "/ca".into(), ..MqttTls::default() };
        let found = all(&EventBus { mqtt_server_internal: String::new(), tls, ..file }, users);
        assert!(found[..3].iter().all(|one| no(*one)) && found[3] == Verdict::Unknown, "{found:?}");
    }

    #[test]
    fn a_session_waits_for_a_client_that_could_come_and_for_no_other() {
        let ways = [
            ("a", AuthMethod::None),
            ("user=plc;a", AuthMethod::Restored),
            ("user=gone;a", AuthMethod::Restored),
            ("user=plc;a", AuthMethod::Certificate),
            ("user=plc;a", AuthMethod::None),
        ];
        let kept = |settings: &EventBus, has_users: bool| {
            let access = Access::new(settings);
            if has_users {
                access.set_users(Users::parse(PLC).unwrap());
            }
            ways.iter()
                .map(|(client, by)| !matches!(access.judge_session(client, by), Verdict::CouldNot(_)))
                .collect::<Vec<_>>()
        };
        let file = EventBus { password_file: "/p".into(), ..EventBus::default() };
        assert_eq!(kept(&EventBus::default(), false), [true, false, false, false, true]);
        assert_eq!(kept(&file, false), [true, true, true, false, true], "nobody has understood the file");
        assert_eq!(kept(&file, true), [true, true, false, false, true]);
        let no_strangers = EventBus { allow_anonymous: false, ..file.clone() };
        assert_eq!(kept(&no_strangers, true), [false, true, false, false, true]);
        // Rights are another thing: a session is not lost with them.
        let with_acl = EventBus { acl_file: "/a".into(), ..file.clone() };
        assert_eq!(kept(&with_acl, true), [true, true, false, false, true]);
        let tls = MqttTls { enable: true, client_ca_file: "/ca".into(), ..MqttTls::default() };
        let both = EventBus { tls: tls.clone(), ..file.clone() };
        assert_eq!(kept(&both, true), [true, true, false, true, true]);
        let certified = EventBus { mqtt_server_internal: String::new(), tls, ..file };
        assert_eq!(kept(&certified, true), [false, false, false, true, true]);
    }
}
