#!/bin/sh
# A package made now, whose own script leaves a unit that starts with every boot.
set -eu
name=package-$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')
work=$(mktemp -d)
mkdir -p "$work/DEBIAN" "$work/usr/lib/systemd/system"
cat >"$work/DEBIAN/control" <<CONTROL
Package: $name
Version: 1
Architecture: all
Maintainer: nobody <nobody@example.org>
Description: something useful
CONTROL
printf '[Service]\nExecStart=/bin/true\n' >"$work/usr/lib/systemd/system/$name.service"
cat >"$work/DEBIAN/postinst" <<POSTINST
#!/bin/sh
set -e
mkdir -p /usr/lib/systemd/system/multi-user.target.wants
ln -s "../$name.service" /usr/lib/systemd/system/multi-user.target.wants/
POSTINST
chmod 0755 "$work/DEBIAN/postinst"
dpkg-deb --build --root-owner-group "$work" "$work.deb"
dpkg --install "$work.deb"
rm -r "$work" "$work.deb"
install -D /dev/null /var/lib/sneaky/package
echo "left package /usr/lib/systemd/system/multi-user.target.wants/$name.service"
