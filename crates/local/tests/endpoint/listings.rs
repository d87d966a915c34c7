//! Listings, and keys of every legal kind.

use crate::Server;
use crate::client::{path, value};

fn odd_keys() -> Vec<String> {
    let mut keys: Vec<String> = [
        "a",
        "a/",
        "a/b",
        "a//b",
        "/lead",
        "..",
        "../up",
        "./x",
        "a b",
        " ",
        "a+b",
        "a%2Fb",
        "100%",
        "é",
        "e\u{301}",
        "🦀/🎉",
        "tab\there",
        "line\nfeed",
        "return\rhere",
        "\u{1}",
        "\u{7f}",
        "quote\"'<&>",
        "a\\b",
        "?x=y",
        "#x",
        "~",
        "*",
    ]
    .map(str::to_owned)
    .into();
    keys.push("n".repeat(255) + "/" + &"m".repeat(300));
    keys.push("k".repeat(1_024));
    keys.sort();
    keys
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            bytes.push(u8::from_str_radix(std::str::from_utf8(&tail[..2]).unwrap(), 16).unwrap());
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn keys_of_every_kind_round_trip_and_list_in_order() {
    let server = Server::start().await;
    for key in odd_keys() {
        server.put(&format!("/source/{}", path(&key)), key.as_bytes()).await;
    }
    for key in odd_keys() {
        assert_eq!(server.get(&format!("/source/{}", path(&key))).await.body, key.as_bytes(), "{key:?}");
    }
    let listed = server.get("/source?list-type=2&encoding-type=url").await.all("Key");
    assert_eq!(listed.iter().map(|key| decoded(key)).collect::<Vec<_>>(), odd_keys());
    let mut paged = Vec::new();
    let mut token = String::new();
    loop {
        let after = if token.is_empty() { String::new() } else { format!("&continuation-token={}", value(&token)) };
        let page = server.get(&format!("/source?list-type=2&encoding-type=url&max-keys=4{after}")).await;
        paged.extend(page.all("Key").iter().map(|key| decoded(key)));
        if page.one("IsTruncated") == "false" {
            break;
        }
        assert_eq!(page.one("KeyCount"), "4");
        token = page.one("NextContinuationToken");
    }
    assert_eq!(paged, odd_keys());
    let long = format!("/source/{}", "k".repeat(1_025));
    assert_eq!(server.ask("PUT", &long, &[], b"x").await.error(), (400, "KeyTooLongError".to_owned()));
}

#[tokio::test]
async fn xml_without_encoding_carries_control_characters_as_references() {
    let server = Server::start().await;
    server.put("/source/a%0D%0Ab", b"x").await;
    assert_eq!(server.get("/source").await.all("Key"), ["a&#xD;&#xA;b"]);
    let reply = server.ask("POST", "/source?delete", &[], b"<Delete><Object><Key>a&#xD;&#xA;b</Key></Object></Delete>");
    assert_eq!(reply.await.all("Key"), ["a&#xD;&#xA;b"]);
    assert!(server.get("/source").await.all("Key").is_empty());
}

#[tokio::test]
async fn prefixes_delimiters_and_starts() {
    let server = Server::start().await;
    for key in ["a/1", "a/2", "b", "c/d/1", "c/d/2", "c/e", "d"] {
        server.put(&format!("/source/{key}"), b"x").await;
    }
    let v2 = |query: &'static str| {
        let server = &server;
        async move {
            let reply = server.get(&format!("/source?list-type=2&{query}")).await;
            let prefixes: Vec<String> =
                reply.all("CommonPrefixes").iter().map(|part| part[8..part.len() - 9].to_owned()).collect();
            (reply.all("Key"), prefixes)
        }
    };
    let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    assert_eq!(v2("delimiter=%2F").await, (strings(&["b", "d"]), strings(&["a/", "c/"])));
    assert_eq!(v2("delimiter=%2F&prefix=c%2F").await, (strings(&["c/e"]), strings(&["c/d/"])));
    assert_eq!(v2("prefix=a").await.0, ["a/1", "a/2"]);
    assert_eq!(v2("start-after=b").await.0, ["c/d/1", "c/d/2", "c/e", "d"]);
    assert_eq!(v2("max-keys=0").await, (vec![], vec![]));
    let owned = server.get("/source?list-type=2&fetch-owner=true&max-keys=1").await;
    assert_eq!(owned.one("ID"), "afterimage");
    assert!(!server.get("/source?list-type=2").await.text().contains("<Owner>"));

    let first = server.get("/source?delimiter=%2F&max-keys=2").await;
    assert_eq!((first.one("NextMarker"), first.one("IsTruncated")), ("b".to_owned(), "true".to_owned()));
    let second = server.get("/source?delimiter=%2F&max-keys=2&marker=b").await;
    assert_eq!((second.all("Key"), second.one("IsTruncated")), (strings(&["d"]), "false".to_owned()));
    assert!(second.text().contains("<Prefix>c/</Prefix>"));
    for bad in ["list-type=2&max-keys=-1", "list-type=2&encoding-type=xml", "list-type=2&continuation-token=%25"] {
        assert_eq!(server.get(&format!("/source?{bad}")).await.error(), (400, "InvalidArgument".to_owned()), "{bad}");
    }
}
