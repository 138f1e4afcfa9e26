#!/usr/bin/env bash
# usage: deploy/debian/build.sh BINARY FOLDER
#
# Makes ticketd_VERSION_ARCHITECTURE.deb in that folder, by debhelper, of a binary that was built on the Debian release
# that it is for. VERSION is that of the binary, or what VERSION says.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
(($# == 2)) || { sed -n 's/^# \(usage: .*\)/\1/p' "$0" >&2 && exit 2; }
BINARY=$(realpath "$1")
FOLDER=$2
VERSION=${VERSION:-$("$BINARY" --version | cut -d ' ' -f 2)}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/ticketd
mkdir -p "$tree/debian/source" "$FOLDER"

cd "$ROOT"
cp "$BINARY" "$tree/ticketd"
cp -r README.md SECURITY.md CHANGELOG.md docs deploy/systemd/*.env "$tree"
# Screenshots, and programs that are read in the repository.
rm -rf "$tree/docs/page" "$tree/docs/clients" "$tree/docs/flow.svg"
cp deploy/debian/{control,rules,ticketd.*} deploy/systemd/*.service "$tree/debian"
# debhelper knows a package's first unit by the package's name, and others by theirs before it.
for unit in accept consume; do
  mv "$tree/debian/ticketd-$unit.service" "$tree/debian/ticketd.ticketd-$unit.service"
done
echo '3.0 (native)' >"$tree/debian/source/format"

# The licence as Debian wants it: a line of the name, then the text, with a blank before each line.
{
  sed "s/@COPYRIGHT@/$(sed -n 's/^Copyright (c) //p' LICENSE)/" deploy/debian/copyright
  sed -n '/^Permission/,$ s/^$/./; /^Permission/,$ s/^/ /p' LICENSE
} >"$tree/debian/copyright"

# The page names the commands that the binary has.
commands() {
  "$BINARY" --help | awk '/^Commands:/ { on = 1; next } /^$/ { on = 0 }
    on && $1 != "help" { name = $1; sub(/^ *[a-z]+ +/, ""); printf ".TP\n.B %s\n%s.\n", name, $0 }'
}
{
  sed '/^@COMMANDS@/,$ d' deploy/debian/ticketd.1
  commands
  sed '1,/^@COMMANDS@/ d' deploy/debian/ticketd.1
} >"$tree/debian/ticketd.1"

# As old as the commit, so that the same one makes the same package.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
maintainer=$(sed -n 's/^Maintainer: //p' deploy/debian/control)
printf 'ticketd (%s) unstable; urgency=medium\n\n  * What has changed is in CHANGELOG.md.\n\n -- %s  %s\n' \
  "$VERSION" "$maintainer" "$(date --utc --rfc-email --date="@$SOURCE_DATE_EPOCH")" >"$tree/debian/changelog"

(cd "$tree" && dpkg-buildpackage --build=binary --unsigned-source --unsigned-changes) >"$work/log" 2>&1 || {
  cat "$work/log" >&2
  exit 1
}
# Only for sources is a native package's note of what it was built with of use.
mv "$work"/ticketd_*.deb "$FOLDER"
ls "$FOLDER/ticketd_${VERSION}"_*.deb
