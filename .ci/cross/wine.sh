# Sourced by what runs programs for Windows: prepares Wine, in a folder of its own that can be kept between runs.

# use_wine FOLDER: makes `wine` run programs in FOLDER, which is made when it isn't there.
use_wine() {
    export WINEPREFIX=$1 WINEARCH=win64 WINEDEBUG=-all WINEDLLOVERRIDES="mscoree,mshtml="
    unset DISPLAY WAYLAND_DISPLAY
    [ -e "$WINEPREFIX/complete" ] && return
    rm -rf "$WINEPREFIX"
    mkdir -p "$WINEPREFIX"
    wine wineboot --init > /dev/null 2>&1
    wineserver_of_prefix --wait
    x86_64-w64-mingw32-gcc -shared -O2 -s -o "$WINEPREFIX/drive_c/windows/system32/bcryptprimitives.dll" .ci/cross/bcryptprimitives.c -ladvapi32
    touch "$WINEPREFIX/complete"
}

# Debian keeps it outside of PATH.
wineserver_of_prefix() {
    local server
    for server in wineserver /usr/lib/wine/wineserver64 /usr/lib/wine/wineserver; do
        if command -v "$server" > /dev/null; then
            "$server" "$@"
            return
        fi
    done
    echo "there is no wineserver here" >&2
    return 1
}
