#!/bin/sh
# The first boot of a card that `edgenn image` has prepared, as root; docs/image.md. Without an argument it has itself
# run at every boot until the model has classified its first frames; with "install" it sees to that.
set -u
boot=/boot/firmware
here=$boot/edgenn
unit=edgenn-first-boot.service

prepare() {
    # On Bookworm the kernel's command line brought us here, and must not do so again.
    sed -i 's/ systemd\.run=[^ ]*//; s/ systemd\.run_success_action=[^ ]*//; s/ systemd\.unit=kernel-command-line\.target//' \
        "$boot/cmdline.txt"
    systemctl enable ssh
    install -m 644 "$here/$unit" /etc/systemd/system/
    systemctl daemon-reload
    systemctl enable "$unit"
    sync
}

finish() {
    systemctl disable "$unit"
    rm -rf "/etc/systemd/system/$unit" "$here"
    systemctl daemon-reload
    sync
    exit 0
}

install_release() {
    # Somebody has deployed meanwhile: what is on the card is older.
    [ -e /opt/edgenn/current ] && finish
    missing=
    for package in $(cat "$here/packages"); do
        dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
            missing="$missing $package"
    done
    if [ -n "$missing" ]; then
        # Without a network this fails, and is tried again.
        export DEBIAN_FRONTEND=noninteractive
        apt-get update && apt-get install -y --no-install-recommends $missing || exit 1
    fi
    release=$(cat "$here/release") || exit 1
    if [ -f "/opt/edgenn/releases/$release/release.json" ]; then
        # Installed by an earlier boot, and did not prove itself then: no camera, perhaps.
        python3 -I /opt/edgenn/releases.pyz switch "$release" || exit 1
    else
        incoming=/opt/edgenn/incoming/$release
        umask 077
        rm -rf "$incoming"
        mkdir -p "$incoming"
        cp -R "$here/incoming/." "$incoming/" || exit 1
        umask 022
        python3 -I "$incoming/releases.pyz" deploy "$release" || exit 1
    fi
    finish
}

case "${1-}" in
"")
    prepare
    # Whatever went wrong: a status of failure here powers the board off on Bookworm.
    exit 0
    ;;
install) install_release ;;
*)
    echo "first-boot.sh [install]" >&2
    exit 2
    ;;
esac
