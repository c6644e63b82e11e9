#!/usr/bin/env bash
# Rookery on this Debian machine, from the sources around this script.
#
#   deployment.sh               install it; or upgrade it, with a backup before tables are changed
#   deployment.sh --back        the version before, with that backup if tables were changed
#   deployment.sh --uninstall   take the program and its services away; settings, data and backups stay
set -euo pipefail
umask 022
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
sources=$(cd "$here/../.." && pwd -P)
program=/opt/rookery
units=/etc/systemd/system
backups=/var/backups/rookery

say() { printf 'deployment: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

has_systemd() { [[ -d /run/systemd/system ]]; }

as_rookery() { # with a program of any version
    HOME=/var/lib/rookery setpriv --reuid rookery --regid rookery --init-groups --inh-caps=-all -- "$@"
}

running() { # the services that run
    has_systemd || return 0
    systemctl list-units --plain --no-legend --state=active,activating 'rookery.service' 'rookery@*.service' |
        awk '{ print $1 }'
}

need_packages() {
    local missing=() name
    for name in python3 python3-venv ca-certificates; do
        dpkg-query --show --showformat='${db:Status-Abbrev}' "$name" 2>/dev/null | grep -q '^ii' || missing+=("$name")
    done
    if ((${#missing[@]})); then
        say "installing with apt-get: ${missing[*]}"
        export DEBIAN_FRONTEND=noninteractive
        apt-get -qq update >&2
        apt-get -qq install -y --no-install-recommends "${missing[@]}" >&2
    fi
    /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "$(/usr/bin/python3 -V) is too old: Rookery needs Python 3.11, which Debian 12 has"
}

name_of_release() { # its version, and a digest of all that it is made of
    local version digest
    version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$sources/src/rookery/__init__.py")
    digest=$(cd "$sources" && find src deploy/debian pyproject.toml requirements/run.txt -type f -not -name '*.pyc' -print0 |
        sort -z | xargs -0 sha256sum | sha256sum)
    printf '%s-%.12s\n' "$version" "$digest"
}

make_release() { # $1: its folder; one that is there is whole
    [[ ! -e $1/whole ]] || return 0
    say "making $1"
    rm -rf "$1"
    /usr/bin/python3 -m venv "$1"
    local pip=("$1/bin/python" -m pip --quiet --disable-pip-version-check --no-input install)
    "${pip[@]}" --require-hashes -r "$sources/requirements/run.txt"
    "${pip[@]}" --no-deps --no-build-isolation "$sources"
    touch "$1/whole"
}

make_user() {
    getent group rookery >/dev/null || groupadd --system rookery
    getent passwd rookery >/dev/null ||
        useradd --system --gid rookery --home-dir /var/lib/rookery --no-create-home --shell /usr/sbin/nologin rookery
    install -d -o rookery -g rookery -m 0700 /var/lib/rookery "$backups"
    install -d -m 0755 /etc/rookery
    [[ -e /etc/rookery/rookery.toml ]] ||
        install -o root -g rookery -m 0640 "$here/rookery.toml" /etc/rookery/rookery.toml
}

put_in_place() { # what is around the program
    sed "s#@PROGRAM@#$program/current/bin/rookery#" "$here/rookery" >/usr/sbin/rookery.new
    chmod 0755 /usr/sbin/rookery.new
    mv /usr/sbin/rookery.new /usr/sbin/rookery
    install -d "$units" /usr/share/doc/rookery
    install -m 0644 "$here"/rookery.service "$here"/rookery@.service "$here"/rookery.socket "$units"
    cp -r "$sources/README.md" "$sources/CHANGELOG.md" "$sources/LICENSE" "$sources/docs" /usr/share/doc/rookery
    if has_systemd; then
        systemctl daemon-reload
    fi
}

point() { # $1: a link, $2: its new aim; there is no moment without it
    ln -s "$2" "$1.new"
    mv -T "$1.new" "$1"
}

config_files() { find /etc/rookery -name '*.toml' -print0 | sort -z; }

check_settings() { # $1: the release that must take them
    local file
    while IFS= read -r -d '' file; do
        as_rookery "$1/bin/rookery" config check --config "$file" >/dev/null || die "$file must be mended first"
    done < <(config_files)
}

find_old_tables() { # $1: a release; `old_tables` has the settings files whose store it would change
    local file said
    old_tables=()
    while IFS= read -r -d '' file; do
        if ! said=$(as_rookery "$1/bin/rookery" migrate --check --config "$file" 2>&1); then
            [[ $said == *'[schema_too_old]'* ]] || die "$file: $said"
            old_tables+=("$file")
        fi
    done < <(config_files)
}

migrate() { # $1: the old release, $2: the new, then settings files; what is noted is the way back
    local old=$1 new=$2 file backup
    shift 2
    for file in "$@"; do
        backup=$backups/$(basename "$file" .toml)-before-$(basename "$new")-$(date -u +%Y%m%dT%H%M%SZ).rookery
        say "backup into $backup"
        as_rookery "$old/bin/rookery" backup "$backup" --config "$file" >/dev/null || return 1
        printf '%s\t%s\n' "$file" "$backup" >>"$new/migrated"
        as_rookery "$new/bin/rookery" migrate --config "$file" || return 1
    done
}

start() { # services; systemd waits until each is ready
    local one
    for one in "$@"; do
        systemctl restart "$one" || return 1
    done
}

undo() { # $1: the release before, $2: the one that goes; the backups of what it changed are put back
    local file backup
    if [[ -e $2/migrated ]]; then
        while IFS=$'\t' read -r file backup; do
            ! as_rookery "$1/bin/rookery" migrate --check --config "$file" >/dev/null 2>&1 || continue
            say "putting $backup back"
            as_rookery "$1/bin/rookery" restore "$backup" --force --config "$file" >/dev/null ||
                die "$backup must be put back by hand, into an empty store: rookery restore --config …"
        done <"$2/migrated"
        rm "$2/migrated"
    fi
    point "$program/current" "$1"
}

install_or_upgrade() {
    need_packages
    make_user
    local new old='' services=()
    new=$program/$(name_of_release)
    [[ ! -L $program/current ]] || old=$(readlink "$program/current")
    make_release "$new"
    check_settings "$new"
    if [[ -z $old ]]; then
        point "$program/current" "$new"
        put_in_place
        if has_systemd; then
            systemctl enable --now rookery.socket rookery.service || die "it does not start: journalctl -u rookery"
        else
            say "no systemd here: start it with rookery serve"
        fi
        say "installed $(basename "$new")"
        return
    fi
    if [[ $old == "$new" ]]; then
        put_in_place
        say "$(basename "$new") is installed already"
        return
    fi
    find_old_tables "$new"
    mapfile -t services < <(running)
    if ((${#old_tables[@]} && ${#services[@]})); then
        systemctl stop "${services[@]}"
    fi
    if ! migrate "$old" "$new" "${old_tables[@]}"; then
        undo "$old" "$new"
        start "${services[@]}" || true
        die "the tables could not be brought up; $(basename "$old") goes on"
    fi
    set +e # a condition would switch -e off for all that is inside
    (set -e; point "$program/current" "$new"; put_in_place; start "${services[@]}")
    local failed=$?
    set -e
    if ((failed)); then
        ((${#services[@]} == 0)) || systemctl stop "${services[@]}" || true
        undo "$old" "$new"
        start "${services[@]}" || die "neither version starts: journalctl -u rookery"
        die "$(basename "$new") does not start: $(basename "$old") goes on"
    fi
    point "$program/previous" "$old"
    find "$program" -mindepth 1 -maxdepth 1 -type d -not -path "$old" -not -path "$new" -exec rm -rf {} +
    say "upgraded to $(basename "$new")"
}

back() {
    [[ -L $program/previous ]] || die "there is no version before"
    local new old services=()
    new=$(readlink "$program/current") old=$(readlink "$program/previous")
    mapfile -t services < <(running)
    ((${#services[@]} == 0)) || systemctl stop "${services[@]}"
    undo "$old" "$new"
    rm "$program/previous"
    start "${services[@]}" || die "it does not start: journalctl -u rookery"
    say "back to $(basename "$old")"
}

uninstall() {
    local services=()
    mapfile -t services < <(running)
    if has_systemd; then
        systemctl disable --now rookery.socket rookery.service "${services[@]}"
    fi
    rm -rf "$units"/rookery.service "$units"/rookery@.service "$units"/rookery.socket /usr/sbin/rookery \
        /usr/share/doc/rookery "$program"
    if has_systemd; then
        systemctl daemon-reload
    fi
    say "Rookery is away. /etc/rookery, /var/lib/rookery* and $backups stay, and the user rookery, whose they are"
}

[[ $# -le 1 ]] || die "usage: deployment.sh [--back | --uninstall]"
[[ $(id -u) == 0 ]] || die "this is for root: sudo $0 $*"
grep -qx 'ID=debian' /etc/os-release || die "this is for Debian; elsewhere make serve runs Rookery"
! dpkg-query --show rookery >/dev/null 2>&1 || die "the package rookery is installed: apt-get remove rookery first"
case ${1:-} in
    '') install_or_upgrade ;;
    --back) back ;;
    --uninstall) uninstall ;;
    *) die "usage: deployment.sh [--back | --uninstall]" ;;
esac
