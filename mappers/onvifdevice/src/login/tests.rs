use super::*;

fn login(way: Way) -> Here {
    here(Login::new(Some(("op".to_owned(), "p&w".to_owned())), way, false))
}

fn here(login: Login) -> Here {
    Here { login, question: Question::default() }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn offers(nonce: &str) -> Vec<AuthScheme> {
    AuthScheme::read(&format!("Digest realm=\"r\", nonce=\"{nonce}\", qop=\"auth\""))
}

/// A login and one connection.
struct Here {
    login: Login,
    question: Question,
}

impl std::ops::Deref for Here {
    type Target = Login;

    fn deref(&self) -> &Login {
        &self.login
    }
}

impl std::ops::DerefMut for Here {
    fn deref_mut(&mut self) -> &mut Login {
        &mut self.login
    }
}

fn dress(login: &mut Here, kind: Kind) -> (Option<String>, Option<String>, Sent) {
    login.login.dress(kind, &mut login.question, ("POST", "/"), at("2026-11-30T10:00:00Z"), [7; 16])
}

fn refused(login: &mut Here, kind: Kind, sent: &Sent, offers: &[AuthScheme], tries: &mut Tries) -> Next {
    let sent = Sent { kind, ..sent.clone() };
    login.login.was_refused(&mut login.question, &sent, offers, "NotAuthorized", tries, Instant::now())
}

#[test]
fn a_token_is_that_of_the_specification() {
    // ONVIF Application Programmer's Guide §6.1.1.3.
    let nonce: [u8; 16] = STANDARD.decode("LKqI6G/AikKCQrN0zqZFlg==").unwrap().try_into().unwrap();
    let made = token("user", "userpassword", at("2010-09-16T07:50:45Z"), nonce);
    for part in [
        "<wsu:Created>2010-09-16T07:50:45Z</wsu:Created>",
        ">LKqI6G/AikKCQrN0zqZFlg==</wsse:Nonce>",
        "#PasswordDigest\">tuOSpGlFlIXsozq4HFNeeGeFLEI=</wsse:Password>",
    ] {
        assert!(made.contains(part), "{made}");
    }
    assert!(token("<a>", "", at("2010-09-16T07:50:45Z"), nonce).contains("&lt;a&gt;"));
}

#[test]
fn a_token_has_the_time_of_the_camera() {
    let mut login = login(Way::AsAsked);
    login.clock(at("1970-01-01T01:00:00Z"), at("2026-11-30T10:00:00Z"));
    let (token, header, _) = dress(&mut login, Kind::Soap);
    assert!(token.unwrap().contains(">1970-01-01T01:00:00Z<"));
    assert_eq!(header, None);
    // What a camera says of its clock may be anything.
    login.clock(Timestamp::MAX, at("2026-11-30T10:00:00Z"));
    assert!(dress(&mut login, Kind::Soap).0.is_some());
}

#[test]
fn what_a_camera_asks_for_is_tried_and_then_it_is_left_alone() {
    let mut login = login(Way::AsAsked);
    let mut tries = Tries::default();
    let (_, _, sent) = dress(&mut login, Kind::Soap);
    assert_eq!(refused(&mut login, Kind::Soap, &sent, &offers("1"), &mut tries), Next::Again);
    let (token, header, sent) = dress(&mut login, Kind::Soap);
    assert!(token.is_none() && header.unwrap().contains("nc=00000001"), "not both");
    // Another question is a no, too: the other way, once, with the camera's time.
    assert_eq!(refused(&mut login, Kind::Soap, &sent, &offers("2"), &mut tries), Next::AfterItsClock);
    let (token, _, sent) = dress(&mut login, Kind::Soap);
    assert!(token.is_some());
    let Next::Stop(said) = refused(&mut login, Kind::Soap, &sent, &offers("3"), &mut tries) else { panic!() };
    assert!(said.contains("`userName`") && !said.contains("p&w"), "{said}");
    let now = Instant::now();
    assert_eq!(login.check(now), Err(said));
    assert_eq!(login.check(now + LEFT_ALONE), Ok(()));
}

#[test]
fn a_question_that_has_grown_old_is_answered_anew() {
    let mut login = login(Way::Digest);
    let (mut tries, sent) = (Tries::default(), Sent::default());
    assert_eq!(refused(&mut login, Kind::Soap, &sent, &offers("1"), &mut tries), Next::Again);
    for count in 1..=3 {
        let (_, header, sent) = dress(&mut login, Kind::Get);
        assert!(header.unwrap().contains(&format!("nc={count:08x}")));
        login.was_taken(&sent);
    }
    let (_, _, sent) = dress(&mut login, Kind::Get);
    let mut tries = Tries::default();
    assert_eq!(refused(&mut login, Kind::Get, &sent, &offers("2"), &mut tries), Next::Again);
    let (_, header, _) = dress(&mut login, Kind::Get);
    let header = header.unwrap();
    assert!(header.contains("nc=00000001") && header.contains("nonce=\"2\""), "{header}");
}

#[test]
fn who_may_not_do_one_thing_does_the_others_and_who_is_known_no_more_stops() {
    let mut login = login(Way::Token);
    let (_, _, sent) = dress(&mut login, Kind::Soap);
    login.was_taken(&sent);
    for _ in 0..2 {
        let mut tries = Tries::default();
        assert_eq!(
            refused(&mut login, Kind::Soap, &sent, &offers("1"), &mut tries),
            Next::AfterItsClock,
            "no HTTP"
        );
        let Next::Stop(said) = refused(&mut login, Kind::Soap, &sent, &[], &mut tries) else { panic!() };
        assert!(said.contains("may `userName` do this"), "{said}");
        assert_eq!(login.check(Instant::now()), Ok(()));
    }
    let mut tries = Tries { clock: true, ..Tries::default() };
    assert!(matches!(refused(&mut login, Kind::Soap, &sent, &[], &mut tries), Next::Stop(_)));
    assert!(login.check(Instant::now()).is_err());
}

#[test]
fn a_password_goes_in_clear_only_where_a_device_says_so() {
    let basic = AuthScheme::read("Basic realm=\"r\"");
    let mut closed = login(Way::AsAsked);
    let mut tries = Tries::default();
    let (_, _, sent) = dress(&mut closed, Kind::Get);
    let Next::Stop(said) = refused(&mut closed, Kind::Get, &sent, &basic, &mut tries) else { panic!() };
    assert!(said.contains("`allowBasic: true`"), "{said}");
    let mut open = here(Login::new(Some(("u".to_owned(), "p".to_owned())), Way::AsAsked, true));
    assert_eq!(refused(&mut open, Kind::Get, &sent, &basic, &mut Tries::default()), Next::Again);
    assert_eq!(dress(&mut open, Kind::Get).1.as_deref(), Some("Basic dTpw"));
    let mut nobody = here(Login::new(None, Way::AsAsked, false));
    let Next::Stop(said) = refused(&mut nobody, Kind::Soap, &Sent::default(), &basic, &mut tries) else {
        panic!()
    };
    assert!(said.contains("write `userName`"), "{said}");
}
