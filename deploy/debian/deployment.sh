#!/usr/bin/env bash
# Rookery on this Debian machine, from the sources around this script.
#
#   deployment.sh               install it, or upgrade it; databases whose tables change are kept as they were
#   deployment.sh --back        the version before, with those databases
#   deployment.sh --uninstall   take the program and its services away; settings and data stay
#
# What was interrupted is finished by running it again.
set -euo pipefail
umask 022
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
sources=$(cd "$here/../.." && pwd -P)
program=/opt/rookery
units=/usr/local/lib/systemd/system # below /etc/systemd, where systemctl edit writes
stopped=$program/stopped            # services that are to run again
ailing=$program/ailing              # those of them that did not run well before either
coming=$program/coming              # while versions change: the release from which, and to which it can go back
shopt -s nullglob
unset "${!ROOKERY_@}" # root's own are not the service's

say() { printf 'deployment: %s\n' "$*" >&2 || true; } # also when nobody listens any more
die() { say "$@"; exit 1; }

has_systemd() { [[ -d /run/systemd/system ]]; }

as_rookery() { # with a program of any version
    HOME=/var/lib/rookery setpriv --reuid rookery --regid rookery --init-groups --inh-caps=-all -- "$@"
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

make_user() {
    getent group rookery >/dev/null || groupadd --system rookery
    getent passwd rookery >/dev/null ||
        useradd --system --gid rookery --home-dir /var/lib/rookery --no-create-home --shell /usr/sbin/nologin rookery
    install -d -o rookery -g rookery -m 0700 /var/lib/rookery /var/backups/rookery
    install -d -m 0755 /etc/rookery "$program"
}

# --- releases: each is a folder with an environment of its own, and all that is put in place with it ------------------

name_of_release() { # its version, and a digest of all that it is made of
    local version digest
    version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$sources/src/rookery/__init__.py")
    digest=$(cd "$sources" && {
        /usr/bin/python3 -V
        find src deploy/debian docs pyproject.toml requirements/traces.txt -type f -not -name '*.pyc' -print0 |
            sort -z | xargs -0 sha256sum
    } | sha256sum)
    printf '%s-%.12s\n' "$version" "$digest"
}

make_release() { # $1: its folder; one that is there is whole
    [[ ! -e $1/whole ]] || return 0
    say "making $1"
    rm -rf "$1"
    /usr/bin/python3 -m venv "$1"
    local pip=("$1/bin/python" -m pip --quiet --disable-pip-version-check --no-input install)
    "${pip[@]}" --no-deps --require-hashes -r "$sources/requirements/traces.txt"
    "${pip[@]}" --no-deps --no-build-isolation "$sources"
    install -d "$1/deploy" "$1/doc"
    cp "$here"/rookery "$here"/rookery.toml "$here"/rookery.service "$here"/rookery@.service "$here"/rookery.socket "$1/deploy"
    cp -r "$sources/README.md" "$sources/CHANGELOG.md" "$sources/LICENSE" "$sources/docs" "$1/doc"
    sync --file-system "$1"
    touch "$1/whole"
}

point() { # $1: a link, $2: its new aim; there is no moment without it
    ln -sfnT "$2" "$1.new"
    mv -T "$1.new" "$1"
}

put_in_place() { # $1: a release, for whose program these are
    sed "s#@PROGRAM@#$program/current/bin/rookery#" "$1/deploy/rookery" >/usr/sbin/rookery.new
    chmod 0755 /usr/sbin/rookery.new
    mv /usr/sbin/rookery.new /usr/sbin/rookery
    install -d "$units"
    install -m 0644 "$1"/deploy/*.service "$1"/deploy/*.socket "$units"
    ln -sfnT "$program/current/doc" /usr/share/doc/rookery
    if has_systemd; then
        systemctl daemon-reload
    fi
}

check_settings() { # $1: the release that must take them
    local file
    for file in /etc/rookery/*.toml; do
        as_rookery "$1/bin/rookery" config check --config "$file" >/dev/null || die "$file must be mended first"
    done
}

# --- services ----------------------------------------------------------------------------------------------------------

units_in() { # $1: states
    systemctl list-units --plain --no-legend --state="$1" rookery.socket rookery.service 'rookery@*.service' |
        awk '{ print $1 }'
}

note_running() { # in files, as an interruption must not forget them
    has_systemd || return 0
    [[ -e $coming ]] || units_in activating,failed >"$ailing"
    units_in active,activating,failed >>"$stopped"
    sort -uo "$stopped" "$stopped"
}

noted() { # those that were noted; the socket first
    [[ ! -e $stopped ]] || { grep '\.socket$' "$stopped" || true; grep -v '\.socket$' "$stopped" || true; }
}

halt() { # the socket too: whoever came would start the service again
    local names
    mapfile -t names < <(noted)
    ((${#names[@]} == 0)) || systemctl stop "${names[@]}"
}

resume() { # systemd waits until each is ready; one that fails keeps none of the others
    local names name how bad=0
    mapfile -t names < <(noted)
    for name in "${names[@]}"; do
        systemctl reset-failed "$name" 2>/dev/null || true
        how=restart
        [[ $name != *.socket ]] || how=start
        systemctl "$how" "$name" || grep -qsxF "$name" "$ailing" || bad=1
    done
    ((bad == 0)) || return 1
    rm -f "$stopped" "$ailing"
}

# --- tables ------------------------------------------------------------------------------------------------------------

is_sqlite() { # $1: a release, $2: a settings file; the others' tables are not this machine's alone
    as_rookery "$1/bin/rookery" config show --config "$2" | grep -E '^store +sqlite' >/dev/null
}

find_old_tables() { # $1: a release; `old_tables` has the settings files whose tables it would change
    local file said
    old_tables=()
    for file in /etc/rookery/*.toml; do
        said=$(as_rookery "$1/bin/rookery" migrate --check --config "$file" 2>&1) && continue
        if [[ $said == *'[schema_missing]'* ]]; then
            say "$file: $said"
            continue
        fi
        [[ $said == *'[schema_too_old]'* ]] || die "$file: $said"
        is_sqlite "$1" "$file" ||
            die "$file: make a backup of that store, which other machines may share; then, as rookery:" \
                "$1/bin/rookery migrate --config $file; then run this again"
        old_tables+=("$file")
    done
}

schema_of() { # $1: a SQLite file; its user_version, as its head has it
    od --address-radix=n --skip-bytes=60 --read-bytes=4 --format=u4 --endian=big "$1" | tr -d ' '
}

kept_for() { # $1: a data folder, $2: a schema; the newest database of it that was kept
    local name
    while IFS= read -r name; do
        if [[ $(schema_of "$1/$name") == "$2" ]]; then
            echo "$1/$name"
            return
        fi
    done < <(find "$1" -maxdepth 1 -name 'rookery.db.before-schema-*' -not -name '*.part' -printf '%f\n' | sort -t- -k4nr)
}

bring_back() { # $1: a release that shall run; databases that it can't read are put aside, for those kept for it
    local file said data kept
    for file in /etc/rookery/*.toml; do
        is_sqlite "$1" "$file" || continue
        said=$(as_rookery "$1/bin/rookery" migrate --check --config "$file" 2>&1) && continue
        [[ $said == *'[schema_too_new]'* && $said =~ 'knows up to '([0-9]+) ]] || die "$file: $said"
        data=$(as_rookery "$1/bin/rookery" config show --config "$file" | awk -F '  +' '$1 == "data" { print $2 }')
        kept=$(kept_for "$data" "${BASH_REMATCH[1]}")
        [[ -n $kept ]] || die "$file: nothing was kept that $(basename "$1") can read"
        as_rookery flock --nonblock "$data/rookery.db.lock" bash -euc '
            now=$1/rookery.db aside=$1/rookery.db.before-going-back-$(date +%s)
            # After this its journal holds nothing that it lacks.
            /usr/bin/python3 -c "
import sqlite3, sys
sys.exit(sqlite3.connect(sys.argv[1]).execute(\"PRAGMA wal_checkpoint(TRUNCATE)\").fetchone()[0])" "$now"
            rm -f "$now-wal" "$now-shm"
            ln "$now" "$aside"
            mv -T "$2" "$now"
            echo "deployment: $now is again what it was; what was written since is in $aside" >&2 || true
        ' - "$data" "$kept" || die "$file: a server or a command has the database"
    done
}

# --- what is asked for --------------------------------------------------------------------------------------------------

attempt() { # -e would not hold inside a condition; the status is in `failed`
    set +e
    (set -e; "$@")
    failed=$?
    set -e
}

take_over() { # $1: a release; $2: the one before, if any
    local file said
    if [[ -n $2 ]] && ((${#old_tables[@]})); then
        halt
    fi
    for file in "${old_tables[@]}"; do
        said=$(as_rookery "$1/bin/rookery" migrate --config "$file" 2>&1) || die "$file: $said"
        say "$file: $said"
    done
    put_in_place "$1"
    if [[ -z $2 ]] && has_systemd; then
        systemctl enable rookery.socket rookery.service
    fi
    point "$program/current" "$1"
    resume
}

go_back() { # $1: the release before
    halt
    bring_back "$1"
    put_in_place "$1"
    point "$program/current" "$1"
    resume
    rm -f "$coming"
}

install_or_upgrade() {
    need_packages
    make_user
    local new old='' failed
    new=$program/$(name_of_release)
    [[ ! -L $program/current ]] || old=$(readlink "$program/current")
    [[ ! -e $coming ]] || old=$(<"$coming")
    make_release "$new"
    [[ -n $old || -e /etc/rookery/rookery.toml ]] ||
        install -o root -g rookery -m 0640 "$here/rookery.toml" /etc/rookery/rookery.toml
    check_settings "$new"
    if [[ $old == "$new" && -e $coming ]]; then
        back
        return
    fi
    find_old_tables "$new"
    trap '' HUP INT TERM PIPE # from here on it is done, or undone
    if [[ -z $old ]]; then
        ! has_systemd || printf 'rookery.socket\nrookery.service\n' >"$stopped"
    elif [[ $old != "$new" ]]; then
        note_running
        echo "$old" >"$coming"
        sync "$coming"
    fi
    attempt take_over "$new" "$old"
    if ((failed)); then
        [[ -n $old && $old != "$new" ]] || die "it does not start: journalctl -u rookery"
        attempt go_back "$old"
        ((failed == 0)) || die "$(basename "$new") could not take over, and it is not back: deployment.sh --back"
        die "$(basename "$new") could not take over: $(basename "$old") goes on"
    fi
    if [[ -z $old ]]; then
        has_systemd || say "no systemd here: start it with rookery serve"
        say "installed $(basename "$new")"
    elif [[ $old == "$new" ]]; then
        say "$(basename "$new") is installed already"
    else
        point "$program/previous" "$old"
        rm "$coming"
        find "$program" -mindepth 1 -maxdepth 1 -type d -not -path "$old" -not -path "$new" -exec rm -rf {} +
        say "upgraded to $(basename "$new")"
    fi
}

back() {
    local old failed
    if [[ -e $coming ]]; then
        old=$(<"$coming")
    elif [[ -L $program/previous ]]; then
        old=$(readlink "$program/previous")
    else
        die "there is no version before"
    fi
    check_settings "$old"
    trap '' HUP INT TERM PIPE
    note_running
    echo "$old" >"$coming"
    attempt go_back "$old"
    ((failed == 0)) || die "it is not back: mend what is said above, and run this again"
    rm -f "$program/previous"
    say "back to $(basename "$old")"
}

uninstall() {
    if has_systemd; then
        note_running
        halt
        local links=(/etc/systemd/system/*.wants/rookery@?*.service)
        systemctl disable rookery.socket rookery.service "${links[@]##*/}" || true
    fi
    rm -rf "$units"/rookery.service "$units"/rookery@.service "$units"/rookery.socket /usr/sbin/rookery \
        /usr/share/doc/rookery "$program"
    if has_systemd; then
        systemctl daemon-reload
    fi
    say "Rookery is away. /etc/rookery and /var/lib/rookery* stay, and the user rookery, whose they are"
}

usage="usage: deployment.sh [--back | --uninstall]"
[[ $# -le 1 && ${1:-} =~ ^(--back|--uninstall|)$ ]] || die "$usage"
[[ $(id -u) == 0 ]] || die "this is for root: sudo $0 $*"
grep -qx 'ID=debian' /etc/os-release || die "this is for Debian; elsewhere make serve runs Rookery"
! dpkg-query --show --showformat='${db:Status-Abbrev}' rookery 2>/dev/null | grep -q '^ii' ||
    die "the package rookery is installed: apt-get remove rookery first"
exec 9>/run/rookery-deployment
flock --nonblock 9 || die "it is at work already"
case ${1:-} in
    '') install_or_upgrade ;;
    --back) back ;;
    --uninstall) uninstall ;;
esac
