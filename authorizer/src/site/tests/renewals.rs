//! Lists of revoked certificates that are renewed: forwards, and whole.

use super::*;

#[test]
fn an_anchors_crl_is_renewed_forwards_only() {
    let place = Place::new();
    let site = place.init();
    let lock = lock(&site);
    let atlas = vo_ca("atlas");
    add_vo(&lock, &vo("atlas"), &atlas.certificate_pem, &atlas.crl_pem, &[vo("atlas")]).unwrap();
    let crl =
        |number| ca::crl(&atlas.key, &atlas.certificate_pem, &[], number, at(DAY), at(40 * DAY)).unwrap();
    let renew = |name: &str, text: &str| renew_anchor_crl(&lock, &vo(name), text, at(2 * DAY));
    renew("atlas", &crl(3)).unwrap();
    renew("atlas", &crl(3)).unwrap();
    assert!(matches!(renew("atlas", &crl(2)), Err(SiteError::OtherCrl { .. })));
    let other = vo_ca("atlas").crl_pem;
    assert!(matches!(renew("atlas", &other), Err(SiteError::OtherCrl { .. })));
    assert!(matches!(renew("none", &crl(4)), Err(SiteError::NoAnchor { .. })));
    let site = Site::open(&place.site()).unwrap();
    assert_eq!(site.trust().anchors()[0].crls()[0].number(), "3");
    // Numbers are no text: 10 comes after 3.
    renew("atlas", &crl(10)).unwrap();
    assert!(matches!(renew("atlas", &crl(9)), Err(SiteError::OtherCrl { .. })));
}

/// An anchor `atlas` with a CA below it, each with lists of its own.
struct TwoCas {
    root: ca::CaFiles,
    key: SecretKey,
    certificate_pem: String,
}

/// A site that trusts them.
struct Trusting {
    place: Place,
    lock: TrustLock,
    /// The anchor's lists.
    file: PathBuf,
}

impl TwoCas {
    fn new() -> Self {
        let (root, key) = (vo_ca("atlas"), SecretKey::generate().unwrap());
        let subject = ca::Subject { organisation: "atlas".to_owned(), common_name: "Issuing CA".to_owned() };
        let valid = (at(0), at(900 * DAY));
        let certificate_pem =
            ca::issue_ca(&root.key, &root.certificate_pem, &subject, &key.public(), valid).unwrap();
        Self { root, key, certificate_pem }
    }

    /// The anchor's list, in force for 40 days.
    fn root(&self, number: u64) -> String {
        ca::crl(&self.root.key, &self.root.certificate_pem, &[], number, at(0), at(40 * DAY)).unwrap()
    }

    /// The list of the CA below, in force between two days.
    fn below(&self, number: u64, from: i64, until: i64) -> String {
        ca::crl(&self.key, &self.certificate_pem, &[], number, at(from * DAY), at(until * DAY)).unwrap()
    }

    /// Trusts it, by the first list of the anchor and the fifth of the CA below.
    fn trust(&self, lock: &TrustLock) {
        let crls = [self.root(1), self.below(5, 0, 40)].join("\n");
        add_vo(lock, &vo("atlas"), &self.root.certificate_pem, &crls, &[vo("atlas")]).unwrap();
    }

    fn trusted(&self) -> Trusting {
        let place = Place::new();
        let site = place.init();
        let lock = lock(&site);
        self.trust(&lock);
        Trusting { place, lock, file: site.layout().anchors().join("atlas.crl.pem") }
    }
}

#[test]
fn no_list_of_a_ca_below_an_anchor_goes_back_or_is_lost() {
    let cas = TwoCas::new();
    let Trusting { place, lock, file } = cas.trusted();
    let renew = |text: &str| renew_anchor_crl(&lock, &vo("atlas"), text, at(DAY));
    let before = fs::read_to_string(&file).unwrap();
    let whole = [cas.root(2), cas.below(6, 0, 40)].join("\n");
    let junk = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    for (said, text) in [
        ("has number 4", [cas.root(2), cas.below(4, 0, 40)].join("\n")),
        ("other content", [cas.root(2), cas.below(5, 0, 41)].join("\n")),
        ("is missing", cas.root(2)),
        ("comes twice", [whole.as_str(), &cas.below(7, 0, 40)].join("\n")),
        ("comes twice", [whole.as_str(), &cas.root(3)].join("\n")),
        ("was due", [cas.root(2), cas.below(6, 0, 1)].join("\n")),
        ("is valid from", [cas.root(2), cas.below(6, 2, 40)].join("\n")),
        ("is cut off", whole[..whole.rfind("-----END").unwrap()].to_owned()),
        ("is malformed", [whole.as_str(), junk].join("\n")),
        ("labelled", [whole.as_str(), &cas.certificate_pem].join("\n")),
        ("was not issued by", cas.below(6, 0, 40)),
    ] {
        let refused = renew(&text).unwrap_err().to_string();
        assert!(refused.contains(said), "{said}: {refused}");
        assert_eq!(fs::read_to_string(&file).unwrap(), before, "{said}");
        Site::open(&place.site()).unwrap();
    }
    renew(&[cas.below(5, 0, 40), cas.root(2)].join("\n")).unwrap();
    renew(&whole).unwrap();
    let site = Site::open(&place.site()).unwrap();
    let numbers: Vec<_> = site.trust().anchors()[0].crls().iter().map(|crl| crl.number()).collect();
    assert_eq!(numbers, ["2", "6"]);
}

#[test]
fn what_is_damaged_of_the_old_lists_does_not_stop_a_renewal() {
    let cas = TwoCas::new();
    let Trusting { place, lock, file } = cas.trusted();
    let renew = |text: &str| renew_anchor_crl(&lock, &vo("atlas"), text, at(DAY));
    let forged = vo_ca("atlas");
    let forged = ca::crl(&forged.key, &forged.certificate_pem, &[], 9, at(0), at(40 * DAY)).unwrap();
    let junk = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    fs::write(&file, [junk, &forged, &cas.below(5, 0, 40)].join("\n")).unwrap();
    assert!(Site::open(&place.site()).is_err());
    // What can be read still counts.
    let refused = renew(&[cas.root(2), cas.below(4, 0, 40)].join("\n"));
    assert!(matches!(refused, Err(SiteError::OtherCrl { .. })));
    renew(&[cas.root(2), cas.below(6, 0, 40)].join("\n")).unwrap();
    Site::open(&place.site()).unwrap();
    // Each of two damaged anchors can be mended while the other one is damaged.
    let belle = vo_ca("belle2");
    add_vo(&lock, &vo("belle2"), &belle.certificate_pem, &belle.crl_pem, &[vo("belle2")]).unwrap();
    fs::write(file.with_file_name("belle2.crl.pem"), junk).unwrap();
    fs::write(&file, junk).unwrap();
    renew(&cas.root(2)).unwrap();
    renew_anchor_crl(&lock, &vo("belle2"), &belle.crl_pem, at(DAY)).unwrap();
    Site::open(&place.site()).unwrap();
}

#[test]
fn a_new_vo_comes_with_whole_lists_one_of_each_ca() {
    let place = Place::new();
    let site = place.init();
    let lock = lock(&site);
    let cas = TwoCas::new();
    let whole = [cas.root(1), cas.below(5, 0, 40)].join("\n");
    for text in [
        whole[..whole.rfind("-----END").unwrap()].to_owned(),
        [whole.as_str(), &cas.below(6, 0, 40)].join("\n"),
        [whole.as_str(), &cas.certificate_pem].join("\n"),
    ] {
        assert!(add_vo(&lock, &vo("atlas"), &cas.root.certificate_pem, &text, &[vo("atlas")]).is_err());
        assert!(names(&site.layout().anchors()).is_empty());
    }
    cas.trust(&lock);
    Site::open(&place.site()).unwrap();
}

#[test]
fn the_sites_own_crl_is_renewed_before_it_is_due() {
    let place = Place::new();
    let site = place.init();
    let signed = |site: &Site| {
        let (header, _) = crl::load(&site.layout().recipe_crl()).unwrap();
        signer::verify_site(&header, Role::CrlIssuer, site.pins(), at(31 * DAY)).is_ok()
    };
    assert!(!signed(&site), "the CA's first CRL is over after 30 days");
    renew_ca_crl(&lock(&site), None, at(29 * DAY)).unwrap();
    let site = Site::open(&place.site()).unwrap();
    assert!(signed(&site));
    assert_eq!(site.pins().crls()[0].number(), "2");
}
