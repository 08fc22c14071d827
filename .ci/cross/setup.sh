#!/usr/bin/env bash
# setup.sh FOLDER [TARGET...]: a Rust toolchain in FOLDER whose standard library exists for other systems too.
#
# Debian's security archive carries a rustc (`rustc-web`) together with the matching sources of the standard library, so that it can be built for
# any target without rustup. The packages are unpacked into FOLDER and not installed. FOLDER/env, when sourced, puts the toolchain first in PATH.
# What is there already is not made again; FOLDER can be kept between runs. Needs apt-get, dpkg and, for Windows, binutils-mingw-w64-x86-64.
set -euo pipefail

[ $# -ge 1 ] || { echo "usage: $0 FOLDER [TARGET...]" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(x86_64-pc-windows-gnu aarch64-apple-darwin)

# Some of these names carry the version of what rustc-web was built against, so they are read from the archive instead of being written here.
dependencies() {
    apt-cache depends --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances "$1" |
        awk '/^ *[|]?Depends:/ { print $2 }'
}
packages() {
    echo rustc-web cargo-web rust-web-src libstd-rust-web-dev
    local std
    std=$(dependencies libstd-rust-web-dev | grep '^libstd-rust-web-[0-9]')
    echo "$std"
    dependencies "$std" | grep '^libllvm'
    dependencies cargo-web | grep -E '^lib(git2|ssh2)-'
    dependencies "$(dependencies cargo-web | grep '^libgit2-')" | grep -E '^lib(mbed|http-parser)'
}

version=$(apt-cache policy rustc-web | awk '/Candidate:/ { print $2 }')
case "$version" in "" | "(none)")
    echo "setup.sh: this machine's package archive has no rustc-web; it is in Debian 12's security archive" >&2
    exit 1
    ;;
esac

if [ "$(cat "$folder/version" 2>/dev/null)" != "$version" ]; then
    rm -rf "$folder/root" "$folder/packages" "$folder/version"
    mkdir -p "$folder/packages"
    echo "setup.sh: unpacking rustc-web $version into $folder"
    names=$(packages | sort -u)
    # As root, apt would drop to a user that may not write here; that is only a warning, so silence it by saying whom to be.
    # shellcheck disable=SC2086 # one word per package
    (cd "$folder/packages" && apt-get -qq -o APT::Sandbox::User=root download $names)
    for package in "$folder"/packages/*.deb; do dpkg -x "$package" "$folder/root"; done
    rm -rf "$folder/packages"
    echo "$version" > "$folder/version"
fi

cat > "$folder/env" <<ENV
export PATH="$folder/root/usr/bin:\$PATH"
export LD_LIBRARY_PATH="$folder/root/usr/lib/$(uname -m)-linux-gnu\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=x86_64-w64-mingw32-gcc
unset RUSTUP_TOOLCHAIN
ENV
# shellcheck source=/dev/null
. "$folder/env"
rustc -V

# Building any crate with -Zbuild-std builds the standard library; what comes out is put where rustc looks for it.
for target in "${targets[@]}"; do
    libraries=$folder/root/usr/lib/rustlib/$target/lib
    [ -e "$libraries/complete" ] && continue
    seed=$(mktemp -d)
    mkdir -p "$seed/src" "$libraries"
    printf '[package]\nname = "seed"\nversion = "0.0.0"\nedition = "2024"\n' > "$seed/Cargo.toml"
    touch "$seed/src/lib.rs"
    echo "setup.sh: building the standard library for $target"
    (cd "$seed" && RUSTC_BOOTSTRAP=1 CARGO_HOME="$folder/cargo" CARGO_TARGET_DIR="$seed/target" \
        cargo build -q --release -Zbuild-std=std,panic_abort,test,proc_macro --target "$target")
    find "$seed/target/$target/release" -name 'lib*.rlib' ! -name 'libseed*' -exec cp {} "$libraries" \;
    rm -rf "$seed"
    touch "$libraries/complete"
done
