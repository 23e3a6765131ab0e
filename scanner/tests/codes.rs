//! The published codes: adding one means adding it here, and none may change its meaning or vanish.

use scanner::{Severity, rules};

#[test]
fn codes_severities_and_references_are_pinned() {
    let table: Vec<String> = rules()
        .iter()
        .map(|rule| {
            let severity = match rule.severity {
                Severity::Deny => 'D',
                Severity::Warn => 'W',
                Severity::Smell => 'S',
            };
            format!("{}{severity}", rule.id)
        })
        .collect();
    let pinned = "EXE-001D EXE-002D EXE-003D EXE-004W EXE-005D EXE-006W EXE-007D \
        PER-001W PER-002W PER-003W PER-004D PER-005D PER-006D PER-007D PER-008D PER-009D PER-010D \
        PRV-001D PRV-002D PRV-003D PRV-004D PRV-005D PRV-006D PRV-007W PRV-008D \
        DEF-001D DEF-002D DEF-003D DEF-004D DEF-005D DEF-006D DEF-007D DEF-008W \
        DEF-009D DEF-010W DEF-011D DEF-012D DEF-013D DEF-014D DEF-015D DEF-016D \
        CRD-001D CRD-002D CRD-003D CRD-004D CRD-005W CRD-006D \
        NET-001D NET-002D NET-003D NET-004W NET-005W NET-006W \
        SUP-001W SUP-003W SUP-005D SUP-006W \
        IMP-001D IMP-002D IMP-003D IMP-004W \
        PRM-001D PRM-002D PRM-003W \
        LIM-001D LIM-002S LIM-003D LIM-004D";
    assert_eq!(table.join(" "), pinned);
}

#[test]
fn every_rule_says_what_it_finds_and_what_to_do() {
    for rule in rules() {
        for text in [rule.title, rule.help] {
            assert!(!text.is_empty() && !text.ends_with('.'), "{}: {text}", rule.id);
        }
        assert!(rule.cwe.is_none_or(|cwe| cwe.starts_with("CWE-")), "{}", rule.id);
        assert!(rule.technique.is_none_or(|technique| technique.starts_with('T')), "{}", rule.id);
    }
}
