use super::*;

struct Given {
    folder: tempfile::TempDir,
    config: Config,
}

fn given(file: Option<&[u8]>, written: Option<&str>) -> Given {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::new("http://127.0.0.1:1".parse().unwrap());
    config.auth_info.token = written.map(|token| token.to_owned().into());
    if let Some(text) = file {
        let path = folder.path().join("token");
        std::fs::write(&path, text).unwrap();
        config.auth_info.token_file = Some(path.to_string_lossy().into_owned());
    }
    Given { folder, config }
}

fn shown(token: &Token, at: Duration) -> Option<String> {
    let shared = token.0.as_ref()?;
    let header = shared.file.lock().unwrap().header(shared.clock.now() + at);
    Some(header.to_str().unwrap().to_owned())
}

/// What a client's request shows.
fn sent(token: &Token) -> Option<HeaderValue> {
    let echo = tower::service_fn(async |request: Request<()>| {
        Ok::<_, std::convert::Infallible>(request.headers().get(AUTHORIZATION).cloned())
    });
    let mut service = token.layer(echo);
    actix_rt::System::new().block_on(async { service.call(Request::new(())).await }).unwrap()
}

#[test]
fn blanks_and_line_ends_around_a_token_do_not_count() {
    for text in ["abc", "abc\n", "abc\r\n", "\n  abc\t\n\n"] {
        let mut file = given(Some(text.as_bytes()), None);
        let header = sent(&take_token(&mut file.config).unwrap()).unwrap();
        assert_eq!((header.to_str().unwrap(), header.is_sensitive()), ("Bearer abc", true), "{text:?}");
        assert!(file.config.auth_info.token_file.is_none(), "kube would read it itself");

        let mut written = given(None, Some(text));
        let token = take_token(&mut written.config).unwrap();
        assert_eq!(written.config.auth_info.token.unwrap().expose_secret(), "abc", "{text:?}");
        assert_eq!(sent(&token), None, "kube shows it");
    }
}

#[test]
fn what_is_no_token_is_named_with_its_place_and_the_cure() {
    let large = vec![b'a'; 64 * 1024 + 1];
    for (text, unfit) in [
        (&b""[..], Unfit::Empty),
        (b" \n", Unfit::Empty),
        (b"abc\ndef\n", Unfit::NoHeader),
        (b"a\0c", Unfit::NoHeader),
        (b"a\xffc", Unfit::NoHeader),
        (&large, Unfit::TooLarge),
    ] {
        let mut file = given(Some(text), None);
        let error = take_token(&mut file.config).unwrap_err();
        assert!(matches!(&error, TokenError::File { unfit: found, .. } if *found == unfit), "{error}");
        let path = file.folder.path().join("token").display().to_string();
        assert!(
            error.to_string().contains(&path) && error.to_string().contains("kubectl create token"),
            "{error}"
        );
        assert!(!error.to_string().contains("def"), "no part of it is told: {error}");
    }
    let error = take_token(&mut given(None, Some("abc\ndef")).config).unwrap_err();
    assert!(matches!(error, TokenError::Written { unfit: Unfit::NoHeader }), "{error}");
    let mut folder = given(Some(b"abc"), None);
    folder.config.auth_info.token_file = Some(folder.folder.path().to_string_lossy().into_owned());
    let error = take_token(&mut folder.config).unwrap_err();
    assert!(matches!(error, TokenError::File { unfit: Unfit::NoFile, .. }), "{error}");
    std::fs::remove_file(folder.folder.path().join("token")).unwrap();
    folder.config.auth_info.token_file =
        Some(folder.folder.path().join("token").to_string_lossy().into_owned());
    let error = take_token(&mut folder.config).unwrap_err();
    assert!(matches!(error, TokenError::Read { .. }), "{error}");
}

#[test]
fn a_file_is_read_again_within_a_minute_and_what_is_no_token_takes_no_good_one_away() {
    let mut file = given(Some(b"old\n"), None);
    let token = take_token(&mut file.config).unwrap();
    let path = file.folder.path().join("token");
    std::fs::write(&path, "new\n").unwrap();
    assert_eq!(shown(&token, Duration::from_secs(40)).unwrap(), "Bearer old");
    assert_eq!(shown(&token, Duration::from_secs(60)).unwrap(), "Bearer new");
    std::fs::write(&path, "").unwrap();
    assert_eq!(shown(&token, Duration::from_secs(120)).unwrap(), "Bearer new");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(shown(&token, Duration::from_secs(180)).unwrap(), "Bearer new");
    std::fs::write(&path, "newest").unwrap();
    assert_eq!(shown(&token, Duration::from_secs(240)).unwrap(), "Bearer newest");
}

#[test]
fn a_file_comes_before_a_written_token_which_is_for_a_file_that_is_not_there() {
    let mut both = given(Some(b"file"), Some("written"));
    assert_eq!(sent(&take_token(&mut both.config).unwrap()).unwrap(), "Bearer file");
    assert!(both.config.auth_info.token.is_none());
    let mut gone = given(Some(b"file"), Some("written"));
    std::fs::remove_file(gone.folder.path().join("token")).unwrap();
    assert_eq!(sent(&take_token(&mut gone.config).unwrap()).unwrap(), "Bearer written");
}

#[test]
fn names_with_passwords_stay_kubes() {
    let mut named = given(Some(b"file"), None);
    named.config.auth_info.username = Some("a".to_owned());
    named.config.auth_info.password = Some("b".to_owned().into());
    assert_eq!(sent(&take_token(&mut named.config).unwrap()), None);
    assert!(named.config.auth_info.token_file.is_some());
}
