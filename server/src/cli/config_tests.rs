use super::*;

fn file(text: &str) -> Result<Layer> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("strandline.toml");
    std::fs::write(&path, text).unwrap();
    Layer::from_file(&path)
}

fn environment(variables: &[(&str, &str)]) -> Result<Layer> {
    Layer::from_environment(|name| {
        variables
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, value)| (*value).to_owned())
    })
}

#[test]
fn flag_wins_over_environment_over_file_over_default() {
    let file =
        file("http = 1001\ngrpc = \"127.0.0.1:1002\"\nscan_threads = 3\nquery_timeout_ms = 5")
            .unwrap();
    let environment = environment(&[
        ("STRANDLINE_HTTP", "2001"),
        ("STRANDLINE_SCAN_THREADS", "4"),
        ("STRANDLINE_HUGE_PAGES", "true"),
    ])
    .unwrap();
    let flags = Layer {
        http: Some("3001".parse().unwrap()),
        ..Layer::default()
    };
    let config = flags.over(environment).over(file).resolve().unwrap();
    assert_eq!(config.http.port(), 3001);
    assert_eq!(config.scan_threads, 4);
    assert!(config.huge_pages);
    assert_eq!(config.grpc.port(), 1002);
    assert_eq!(config.query_timeout_ms, 5);
    assert_eq!(config.log, "info");
}

#[test]
fn an_unknown_key_is_named() {
    let error = file("http = 8099\nhtpp_port = 1").unwrap_err();
    assert!(error.message().contains("htpp_port"), "{error}");
    assert!(error.message().contains("strandline.toml"), "{error}");
}

#[test]
fn a_wrong_value_is_named_with_its_place() {
    let error = environment(&[("STRANDLINE_MEMORY_BYTES_MAX", "lots")]).unwrap_err();
    assert!(
        error
            .message()
            .starts_with("STRANDLINE_MEMORY_BYTES_MAX=\"lots\": "),
        "{error}"
    );
    let error = file("grpc = \"somewhere\"").unwrap_err();
    assert!(error.message().contains("somewhere"), "{error}");
}

#[test]
fn sizes_and_addresses_are_read_in_their_spellings() {
    for (text, bytes) in [
        ("1048576", 1 << 20),
        ("512MiB", 512 << 20),
        ("4 GiB", 4 << 30),
        ("2k", 2048),
    ] {
        assert_eq!(text.parse::<ByteSize>().unwrap().0, bytes, "{text}");
    }
    for wrong in ["", "GiB", "1.5G", "-1", "99999999999TiB", "1 XB"] {
        assert!(wrong.parse::<ByteSize>().is_err(), "{wrong}");
    }
    for (text, address) in [
        ("0", "127.0.0.1:0"),
        ("localhost:81", "127.0.0.1:81"),
        ("0.0.0.0:82", "0.0.0.0:82"),
        ("[::1]:83", "[::1]:83"),
    ] {
        assert_eq!(text.parse::<Address>().unwrap().0.to_string(), address);
    }
    assert!("70000".parse::<Address>().is_err());
}

#[test]
fn contradictions_are_refused() {
    let both = Layer {
        http: Some("9000".parse().unwrap()),
        grpc: Some("9000".parse().unwrap()),
        ..Layer::default()
    };
    assert!(both.resolve().unwrap_err().message().contains("9000"));
    let memory = Layer {
        memory_bytes_max: Some(ByteSize(1)),
        query_memory_bytes_max: Some(ByteSize(2)),
        ..Layer::default()
    };
    assert!(memory.resolve().is_err());
}
