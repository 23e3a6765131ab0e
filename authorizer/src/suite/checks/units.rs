//! systemd's units: what starts by itself is the base's or declared by a `service` step; what is written by hand is
//! declared by a `file` or `link` step. A package's unit that nothing starts is only a file.

use std::collections::HashMap;

use guest::facts::UnitFile;
use serde::{Deserialize, Serialize};

use super::super::declarations::{By, Standing, UNSEEN};
use super::super::pattern::{self, Pattern};
use super::{Check, Evidence, Sees};

/// What packages bring, and what no recipe may touch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitsConfig {
    /// Paths that are tolerated.
    pub allow: Vec<Pattern>,
    /// Units that only the site's recipes may change, override, enable or switch off.
    pub protected: Vec<Pattern>,
}

/// Units of the distribution's packages.
const VENDOR: &str = "/usr/lib/systemd/";
/// Units made at run time.
const RUNTIME: &str = "/run/systemd/";
/// Folders below [`RUNTIME`] that systemd reads units from (systemd.unit(5), "Unit File Load Path").
const RUNTIME_UNITS: [&str; 9] = [
    "system",
    "system.control",
    "system.attached",
    "transient",
    "generator",
    "generator.early",
    "generator.late",
    "user",
    "user.control",
];

/// Kinds of units (systemd.unit(5)).
pub(super) const KINDS: [&str; 11] = [
    "service",
    "socket",
    "target",
    "mount",
    "automount",
    "timer",
    "path",
    "slice",
    "scope",
    "swap",
    "device",
];

const DECLARE_SERVICE: &str = "declare it with a `service` step, or disable it";
const DECLARE_FILE: &str = "put it there with a `file` or `link` step, or remove it";
const REMOVE: &str = "remove it";
const LEAVE: &str = "leave it as the base and the site have it";
const LEAVE_UNIT: &str = "leave it, or disable the unit with a `service` step; what the base masks stays so";

pub(super) const CHECK: Check = Check {
    name: "units",
    sees: Sees::Files,
    lists: &["units"],
    run: |evidence, config, complaints| {
        let config = &config.units;
        let base: HashMap<String, &UnitFile> =
            evidence.base.units.iter().map(|unit| (normal(&unit.path), unit)).collect();
        for unit in &evidence.now.units {
            let path = normal(&unit.path);
            let before = base.get(&path);
            if before.is_some_and(|before| (&before.sha256, &before.link) == (&unit.sha256, &unit.link))
                || pattern::any(&config.allow, &path)
            {
                continue;
            }
            if let Err((problem, remedy)) = judge(evidence, config, &path, unit, before.is_some()) {
                complaints.add(&unit.path, problem, remedy);
            }
        }
        // What the base starts may not be switched off by taking a link away, and what it masks not be let go.
        let now: std::collections::HashSet<String> =
            evidence.now.units.iter().map(|unit| normal(&unit.path)).collect();
        let gone = base.iter().filter(|(path, _)| !path.starts_with(RUNTIME) && !now.contains(*path));
        for (path, unit) in gone {
            if pattern::any(&config.protected, Place::of(path).unit) {
                complaints.add(path, "belongs to a protected unit of the base and is gone", LEAVE);
            } else if !is_disabled(evidence, unit) {
                complaints.add(path, "is of the base and is gone", LEAVE_UNIT);
            }
        }
    },
};

/// Where a file lies and which unit it is about.
struct Place<'a> {
    /// The unit that is defined, extended or started.
    unit: &'a str,
    /// A link that starts it with another unit.
    starts: bool,
    /// A piece that extends it.
    drop_in: bool,
    /// A program that runs at boot.
    program: bool,
}

impl<'a> Place<'a> {
    fn of(path: &'a str) -> Self {
        let mut parts = path.rsplit('/');
        let file = parts.next().unwrap_or(path);
        let folder = parts.next().unwrap_or_default();
        let drop_in = folder.strip_suffix(".d").filter(|_| file.ends_with(".conf"));
        let programs = ["-generators", "-environment-generators", "-shutdown", "-sleep"];
        Self {
            unit: drop_in.unwrap_or(file),
            starts: [".wants", ".requires", ".upholds"].iter().any(|end| folder.ends_with(end)),
            drop_in: drop_in.is_some(),
            program: path.split('/').any(|part| programs.iter().any(|end| part.ends_with(end))),
        }
    }

    /// Whether the file, or what it leads to, is a unit.
    fn is_definition(&self) -> bool {
        !(self.starts || self.drop_in || self.program)
    }
}

type Problem = (&'static str, &'static str);

fn judge(
    evidence: &Evidence<'_>,
    config: &UnitsConfig,
    path: &str,
    unit: &UnitFile,
    in_base: bool,
) -> Result<(), Problem> {
    let place = Place::of(path);
    let standing = evidence.standing(&unit.path, unit.sha256.as_deref(), unit.link.as_deref());
    let enabled = evidence.declared.enabled.get(place.unit).copied();
    if let Some(rest) = path.strip_prefix(RUNTIME)
        && !RUNTIME_UNITS.contains(&rest.split('/').next().unwrap_or_default())
    {
        return Ok(());
    }
    if pattern::any(&config.protected, place.unit) {
        let by_site = standing == Standing::Declared(By::Site) || (place.starts && enabled == Some(By::Site));
        return if by_site { Ok(()) } else { Err(("touches a protected unit", LEAVE)) };
    }
    if standing == Standing::Declared(By::Site) {
        return Ok(());
    }
    if is_wide(place.unit) {
        return Err(("is about all units of a kind, or all whose names begin alike", REMOVE));
    }
    // A drop-in can start and stop other units, and so can a file in the place of a unit of the base.
    let masks = unit.link.as_deref() == Some("/dev/null") && !place.drop_in;
    if standing == Standing::Declared(By::Vo) && !place.starts && !masks && is_of_base(evidence, place.unit) {
        return Err(("changes or extends a unit of the base", LEAVE));
    }
    // That something starts by itself a `service` step says, and not a link.
    match standing {
        Standing::Declared(By::Vo) if !place.starts => return Ok(()),
        Standing::Different => return Err(("is not what the recipe declared", DECLARE_FILE)),
        // Another name for a unit that is judged where it lies.
        Standing::Unseen if !place.starts && unit.link.as_deref().is_some_and(is_unit) => return Ok(()),
        Standing::Unseen if !place.starts => return Err((UNSEEN, DECLARE_FILE)),
        Standing::Declared(_) | Standing::Unseen | Standing::Undeclared => {}
    }
    if place.program {
        return Err(("is a program that systemd runs, and not the base's", DECLARE_FILE));
    }
    if place.starts {
        return match (&unit.link, enabled) {
            (Some(target), Some(_)) if names_unit(target, place.unit) => Ok(()),
            (_, Some(_)) => Err(("starts something else than its name says", DECLARE_FILE)),
            (_, None) => Err(("starts by itself, and nobody declared it", DECLARE_SERVICE)),
        };
    }
    if path.starts_with(VENDOR) {
        return vendor(evidence, path, unit, &place, in_base);
    }
    if path.starts_with(RUNTIME) {
        return if enabled.is_some() {
            Ok(())
        } else {
            Err(("was made at boot, and nobody declared it", DECLARE_SERVICE))
        };
    }
    match unit.link.as_deref() {
        Some("/dev/null") => Err(("switches a unit off, and nobody declared it", DECLARE_FILE)),
        // An alias comes with enabling the unit that it names.
        Some(target) if evidence.declared.enabled.keys().any(|name| names_unit(target, name)) => Ok(()),
        _ => Err(("is written by hand, and nobody declared it", DECLARE_FILE)),
    }
}

/// Whether this is no unit's name, but what systemd takes for all of a kind, or a prefix of names, also of instances.
fn is_wide(name: &str) -> bool {
    let (stem, kind) = name.rsplit_once('.').unwrap_or(("", name));
    let prefix = stem.split('@').next().unwrap_or_default();
    KINDS.contains(&kind) && (prefix.is_empty() || prefix.ends_with('-'))
}

/// Whether the base has a unit of this name, or the template of this instance.
fn is_of_base(evidence: &Evidence<'_>, name: &str) -> bool {
    let template = template_of(name);
    let has = |wanted: &str| {
        evidence.base.units.iter().any(|base| {
            let path = normal(&base.path);
            Place::of(&path).is_definition() && path.rsplit('/').next() == Some(wanted)
        })
    };
    name.rsplit('.').next().is_some_and(|kind| KINDS.contains(&kind))
        && (has(name) || template.is_some_and(|template| has(&template)))
}

/// The template of an instance, or of a template itself (systemd.unit(5)).
fn template_of(name: &str) -> Option<String> {
    let (stem, _) = name.split_once('@')?;
    let (_, kind) = name.rsplit_once('.')?;
    Some(format!("{stem}@.{kind}"))
}

/// Whether a link of the base goes with a unit that a step disables: it starts the unit, or is another name for it.
fn is_disabled(evidence: &Evidence<'_>, unit: &UnitFile) -> bool {
    let target = unit.link.as_deref().unwrap_or_default();
    evidence.declared.disabled.iter().any(|name| names_unit(target, name))
}

/// A file among the packages' units.
fn vendor(
    evidence: &Evidence<'_>,
    path: &str,
    unit: &UnitFile,
    place: &Place<'_>,
    in_base: bool,
) -> Result<(), Problem> {
    if in_base {
        return Err(("was changed, and is a file of the base", LEAVE));
    }
    let unit_folder = ["system/", "user/"].iter().any(|folder| path[VENDOR.len()..].starts_with(folder));
    if !unit_folder {
        return Err(("configures systemd, and nobody declared it", DECLARE_FILE));
    }
    if let Some(target) = &unit.link {
        // What lies behind such a link is read by systemd and not in the facts.
        if [".d", ".wants", ".requires", ".upholds"].iter().any(|end| place.unit.ends_with(end)) {
            return Err(("is a link where systemd expects a folder", REMOVE));
        }
        if target != "/dev/null" && !is_unit(target) {
            return Err(("leads out of the packages' units", DECLARE_FILE));
        }
    }
    if place.drop_in {
        // Only of its own kind: a prefix, an instance or an alias may be about a unit of the base (systemd.unit(5)).
        let own = path.rsplit('/').nth(1).and_then(|folder| folder.strip_suffix(".d")).is_some_and(|name| {
            let extended = format!("{}/{name}", path.rsplitn(3, '/').nth(2).unwrap_or_default());
            evidence.now.units.iter().any(|new| new.sha256.is_some() && normal(&new.path) == extended)
                && !evidence.base.units.iter().any(|base| normal(&base.path).rsplit('/').next() == Some(name))
        });
        return if own { Ok(()) } else { Err(("extends a unit of the base, or may", DECLARE_FILE)) };
    }
    if template_of(place.unit).is_some_and(|template| {
        template != place.unit
            && evidence.base.units.iter().any(|base| normal(&base.path).rsplit('/').next() == Some(&template))
    }) {
        return Err(("stands in for an instance of a unit of the base", DECLARE_FILE));
    }
    // systemd mounts what lies on the way to a path that any unit needs (RequiresMountsFor=).
    let mounts = [".mount", ".automount"].iter().any(|end| place.unit.ends_with(end));
    if mounts && !evidence.declared.enabled.contains_key(place.unit) {
        return Err(("mounts something where others look, and nobody declared it", DECLARE_SERVICE));
    }
    Ok(())
}

/// True if a link's target is a unit of this name (or the template of this instance) among the packages' units or the
/// machine's own.
fn names_unit(target: &str, unit: &str) -> bool {
    let Some((folder, file)) = target.rsplit_once('/') else { return target == unit };
    let folder = normal(&format!("{folder}/"));
    let trusted = ["/usr/lib/systemd/system/", "/etc/systemd/system/", "/usr/lib/systemd/user/", "../", "./"];
    let template = || match (unit.split_once('@'), unit.rsplit_once('.')) {
        (Some((name, _)), Some((_, suffix))) => file == format!("{name}@.{suffix}"),
        _ => false,
    };
    trusted.contains(&folder.as_str()) && (file == unit || template())
}

/// Whether a link leads to a unit among the packages' or the machine's own.
fn is_unit(target: &str) -> bool {
    names_unit(target, target.rsplit('/').next().unwrap_or(target))
}

/// `/lib` is a link to `/usr/lib`.
fn normal(path: &str) -> String {
    match path.strip_prefix("/lib/") {
        Some(rest) => format!("/usr/lib/{rest}"),
        None => path.to_owned(),
    }
}

/// Targets that every boot reaches (systemd.special(7)).
const REACHED: [&str; 6] = [
    "sysinit.target",
    "basic.target",
    "sockets.target",
    "timers.target",
    "paths.target",
    "multi-user.target",
];

/// True if a boot starts this unit by some link, and nothing masks it.
pub(super) fn is_enabled(units: &[UnitFile], name: &str) -> bool {
    let masked = ["/etc/systemd/system/", "/run/systemd/system/", "/etc/systemd/system.control/"]
        .map(|folder| format!("{folder}{name}"));
    units.iter().any(|unit| {
        let path = normal(&unit.path);
        let place = Place::of(&path);
        let boot = REACHED.iter().any(|target| {
            path.rsplit('/')
                .nth(1)
                .and_then(|folder| folder.strip_prefix(target))
                .is_some_and(|end| matches!(end, ".wants" | ".requires"))
        });
        place.starts && place.unit == name && boot && !path.starts_with(RUNTIME)
    }) && !units.iter().any(|unit| masked.contains(&unit.path) && unit.link.as_deref() == Some("/dev/null"))
}

#[cfg(test)]
mod tests {
    use crate::suite::fixture::{Machine, link, unit};

    const WANTS: &str = "/etc/systemd/system/multi-user.target.wants/nginx.service";
    const NGINX: &str = "/lib/systemd/system/nginx.service";
    const SERVICE: &str = "[[step]]\nservice = { name = \"nginx\", enabled = true }\n";

    fn machine(change: impl FnOnce(&mut Machine)) -> Machine {
        let mut machine = Machine::base();
        change(&mut machine);
        machine
    }

    #[test]
    fn a_packages_unit_passes_and_starting_it_must_be_declared() {
        let machine = machine(|m| m.now.units.push(unit(NGINX, "x")));
        machine.passes("units", "", "");
        let mut machine = machine;
        machine.now.units.push(link(WANTS, NGINX));
        machine.passes("units", SERVICE, "");
        machine.fails("units", "", "", WANTS);
        machine.now.units.last_mut().unwrap().link = Some("/home/x/nginx.service".to_owned());
        machine.fails("units", SERVICE, "", "something else than its name");
    }

    #[test]
    fn a_package_cannot_start_itself_from_its_own_folder() {
        let wants = "/usr/lib/systemd/system/multi-user.target.wants/nginx.service";
        machine(|m| m.now.units.push(link(wants, "../nginx.service"))).fails("units", "", "", wants);
        machine(|m| m.now.units.push(link(wants, "../nginx.service"))).passes("units", SERVICE, "");
    }

    #[test]
    fn what_the_base_masks_or_starts_stays_so_unless_a_step_disables_it() {
        let mut machine = Machine::base();
        let mask = link("/etc/systemd/system/dpkg-db-backup.timer", "/dev/null");
        machine.base.units.push(mask.clone());
        machine.fails("units", "", "", "dpkg-db-backup.timer: is of the base and is gone");
        let enabled = "[[step]]\nservice = { name = \"dpkg-db-backup.timer\", enabled = true }\n";
        machine.fails("units", enabled, "", "dpkg-db-backup.timer");
        machine.now.units.push(mask);
        machine.passes("units", "", "");
        let wants = "/etc/systemd/system/timers.target.wants/fstrim.timer";
        machine.base.units.push(link(wants, "/lib/systemd/system/fstrim.timer"));
        machine.fails("units", "", "", wants);
        machine.passes("units", "[[step]]\nservice = { name = \"fstrim.timer\", enabled = false }\n", "");
        machine.base.units.push(link("/run/systemd/generator/x.service", "/lib/systemd/system/x.service"));
        machine.now.units.push(link(wants, "/lib/systemd/system/fstrim.timer"));
        machine.passes("units", "", "");
    }

    #[test]
    fn a_link_alone_starts_nothing_and_leads_to_a_unit() {
        let step = |path: &str, target: &str| {
            format!("[[step]]\nlink = {{ path = \"{path}\", target = \"{target}\" }}\n")
        };
        let with = |path: &str, target: &str| {
            machine(|m| {
                m.now.units.push(unit(NGINX, "x"));
                m.now.units.push(link(path, target));
            })
        };
        with(WANTS, NGINX).fails("units", &step(WANTS, NGINX), "", "starts by itself");
        with(WANTS, NGINX).passes("units", &(step(WANTS, NGINX) + SERVICE), "");
        with(WANTS, "/opt/x/nginx.service").fails(
            "units",
            &(step(WANTS, "/opt/x/nginx.service") + SERVICE),
            "",
            "something else than its name",
        );
        let alias = "/etc/systemd/system/web.service";
        with(alias, NGINX).passes("units", &step(alias, NGINX), "");
        with(alias, "/opt/x/web.service").fails(
            "units",
            &step(alias, "/opt/x/web.service"),
            "",
            "behind a link",
        );
    }

    #[test]
    fn what_is_written_by_hand_is_declared_as_it_is() {
        let path = "/etc/systemd/system/job.service";
        let step =
            "[[step]]\nfile = { path = \"/etc/systemd/system/job.service\", content = \"[Service]\\n\" }\n";
        machine(|m| m.now.units.push(unit(path, "[Service]\n"))).passes("units", step, "");
        machine(|m| m.now.units.push(unit(path, "[Service]\n"))).fails("units", "", "", "by hand");
        machine(|m| m.now.units.push(unit(path, "[Unit]\n"))).fails("units", step, "", "not what the recipe");
    }

    #[test]
    fn the_bases_units_are_not_changed_extended_or_masked() {
        for (path, text) in [
            ("/usr/lib/systemd/system/cron.service", "changed"),
            ("/lib/systemd/system/cron.service", "changed"),
            ("/usr/lib/systemd/system/cron.service.d/x.conf", "extends"),
            ("/usr/lib/systemd/system/service.d/x.conf", "protected"),
            ("/usr/lib/systemd/system-generators/x", "program"),
            ("/usr/lib/systemd/network/x.network", "configures"),
            ("/etc/systemd/system.conf", "by hand"),
            ("/run/systemd/generator.late/x.service", "made at boot"),
            ("/run/systemd/system/x.service", "made at boot"),
        ] {
            machine(|m| m.now.units.push(unit(path, "evil"))).fails("units", "", "", text);
        }
        // Nor may a step declare a piece for every service.
        let all = "/etc/systemd/system/service.d/x.conf";
        let step = format!("[[step]]\nfile = {{ path = \"{all}\", content = \"x\" }}\n");
        machine(|m| m.now.units.push(unit(all, "x"))).fails("units", &step, "", "protected");
        machine(|m| m.now.units.push(link("/etc/systemd/system/cron.service", "/dev/null")))
            .fails("units", "", "", "off");
        machine(|m| m.now.units.push(unit("/run/systemd/units/invocation:x", "1"))).passes("units", "", "");
    }

    /// A file of that very name beside it makes a piece for many units not a package's own.
    #[test]
    fn nothing_is_about_units_of_a_kind_or_with_a_prefix() {
        for folder in ["/usr/lib/systemd/system", "/etc/systemd/system"] {
            for name in ["multi-.target", "device", "swap", "kmod-.service", "getty-@.service", "-.mount"] {
                let (dummy, piece) = (format!("{folder}/{name}"), format!("{folder}/{name}.d/10-x.conf"));
                let both = machine(|m| m.now.units.extend([unit(&dummy, ""), unit(&piece, "x")]));
                let step = |path: &str, text: &str| {
                    format!("[[step]]\nfile = {{ path = \"{path}\", content = \"{text}\" }}\n")
                };
                let steps = step(&dummy, "") + &step(&piece, "x");
                for declared in ["", &steps] {
                    both.fails("units", declared, "", &format!("{dummy}: is about all"));
                    both.fails("units", declared, "", &format!("{piece}: is about all"));
                }
                both.passes("units", "", &steps);
            }
        }
    }

    #[test]
    fn what_a_recipe_declares_of_the_bases_units_is_not_more_than_a_mask() {
        let step = |path: &str| format!("[[step]]\nfile = {{ path = \"{path}\", content = \"x\" }}\n");
        let with = |path: &str| {
            machine(|m| {
                let of_base = ["multi-user.target", "worker@.service"]
                    .map(|name| unit(&format!("/lib/systemd/system/{name}"), "x"));
                m.base.units.extend(of_base.clone());
                m.now.units.extend(of_base);
                m.now.units.push(unit(path, "x"));
            })
        };
        for name in [
            "multi-user.target.d/x.conf",
            "multi-user.target",
            "worker@1.service.d/x.conf",
            "worker@1.service",
            "worker@.service.d/x.conf",
        ] {
            let path = format!("/etc/systemd/system/{name}");
            with(&path).fails("units", &step(&path), "", "changes or extends a unit of the base");
            with(&path).passes("units", "", &step(&path));
        }
        let own = "/etc/systemd/system/nginx.service.d/x.conf";
        with(own).passes("units", &step(own), "");
        let mask = "/etc/systemd/system/worker@1.service";
        let masked = format!("[[step]]\nlink = {{ path = \"{mask}\", target = \"/dev/null\" }}\n");
        machine(|m| {
            let template = unit("/lib/systemd/system/worker@.service", "x");
            m.base.units.push(template.clone());
            m.now.units.extend([template, link(mask, "/dev/null")]);
        })
        .passes("units", &masked, "");
    }

    #[test]
    fn no_packages_unit_starts_by_a_name_that_the_base_knows() {
        let folder = "/usr/lib/systemd/system";
        for (name, text) in [
            // The base's own graphical.target and D-Bus ask for these, and the base does not have them.
            ("display-manager.service", "protected"),
            ("tmp.mount", "protected"),
            ("dbus-org.freedesktop.x1.service", "protected"),
            // An instance's own file comes before its template's.
            ("getty@tty1.service", "stands in for"),
            // Whatever needs a path below it starts it.
            ("var-log.mount", "mounts"),
            // Prefixes, instances and aliases: systemd.unit(5).
            ("cron-.service.d/x.conf", "is about all"),
            ("getty@tty1.service.d/x.conf", "extends"),
            ("alias.service.d/x.conf", "extends"),
        ] {
            let machine = machine(|m| {
                let template = unit("/lib/systemd/system/getty@.service", "x");
                m.base.units.push(template.clone());
                m.now.units.extend([
                    template,
                    link("/usr/lib/systemd/system/alias.service", "cron.service"),
                    unit(&format!("{folder}/{name}"), "evil"),
                ]);
            });
            machine.fails(
                "units",
                "",
                "",
                &format!("{name}: {text}").replace(": protected", ": touches a protected"),
            );
        }
        let own = |m: &mut Machine| {
            m.now
                .units
                .extend([unit(NGINX, "x"), unit("/usr/lib/systemd/system/nginx.service.d/x.conf", "x")]);
        };
        machine(own).passes("units", "", "");
        let mount = "[[step]]\nservice = { name = \"var-log.mount\", enabled = true }\n";
        machine(|m| m.now.units.push(unit("/usr/lib/systemd/system/var-log.mount", "x")))
            .passes("units", mount, "");
    }

    #[test]
    fn a_link_among_the_packages_units_names_one_of_them() {
        let at = |name: &str| format!("/usr/lib/systemd/system/{name}");
        for (name, text) in [
            ("cron.service.d", "folder"),
            ("basic.target.wants", "folder"),
            ("basic.target.requires", "folder"),
            ("basic.target.upholds", "folder"),
            ("x.service", "leads out"),
        ] {
            machine(|m| m.now.units.push(link(&at(name), "/opt/x"))).fails("units", "", "", text);
        }
        for target in ["cron.service", "/lib/systemd/system/cron.service", "/dev/null"] {
            machine(|m| m.now.units.push(link(&at("x.service"), target))).passes("units", "", "");
        }
    }

    #[test]
    fn a_protected_unit_is_the_sites() {
        let drop_in = "/etc/systemd/system/nftables.service.d/x.conf";
        let step = "[[step]]\nfile = { path = \"/etc/systemd/system/nftables.service.d/x.conf\", content = \"x\" }\n";
        machine(|m| m.now.units.push(unit(drop_in, "x"))).fails("units", step, "", "protected");
        machine(|m| m.now.units.push(unit(drop_in, "x"))).passes("units", "", step);
        let wants = "/etc/systemd/system/sysinit.target.wants/nftables.service";
        let service = "[[step]]\nservice = { name = \"nftables\", enabled = true }\n";
        let target = "/lib/systemd/system/nftables.service";
        machine(|m| m.now.units.push(link(wants, target))).fails("units", service, "", "protected");
        machine(|m| m.now.units.push(link(wants, target))).passes("units", "", service);
        let auditd = "/etc/systemd/system/multi-user.target.wants/auditd.service";
        machine(|m| m.base.units.push(link(auditd, "x"))).fails("units", "", "", "gone");
    }
}
