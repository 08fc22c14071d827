#!/usr/bin/env bash
# image.sh FOLDER PROGRAMS: makes FOLDER/kernel and FOLDER/initrd, a small Linux that has these programs and runs .ci/machine/init. The kernel is
# Debian's for virtual machines, unpacked and not installed; FOLDER can be kept between runs. Needs apt-get, dpkg and Debian's busybox-static.
set -euo pipefail

[ $# -eq 2 ] || { echo "usage: $0 FOLDER PROGRAMS" >&2; exit 2; }
programs=$(cd "$2" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"

package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends:/ { print $2; exit }')
[ -n "$package" ] || { echo "image.sh: this machine's package archive has no linux-image-cloud-amd64" >&2; exit 1; }
if [ "$(cat version 2> /dev/null)" != "$package" ]; then
    rm -rf kernel modules unpacked version
    mkdir unpacked
    # As root, apt would drop to a user that may not write here; that is only a warning, so silence it by saying whom to be.
    (cd unpacked && apt-get -qq -o APT::Sandbox::User=root download "$package" && dpkg -x ./*.deb .)
    mkdir modules
    for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk; do
        find unpacked/lib/modules -name "$module.ko" -exec cp {} modules/ \;
        [ -e "modules/$module.ko" ] || { echo "image.sh: $package has no $module.ko" >&2; exit 1; }
    done
    mv unpacked/boot/vmlinuz-* kernel
    rm -rf unpacked
    echo "$package" > version
fi

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
# It becomes the machine's /.
chmod 755 "$root"
mkdir -p "$root"/{bin,data,dev,etc,proc,root,sys,tmp}
cp "$(command -v busybox)" "$root/bin/busybox"
for program in bluebird apiserver kubelet testapp; do
    strip -o "$root/bin/$program" "$programs/$program"
    ldd "$programs/$program" | grep -o '/[^ ]*'
done | sort -u | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done
cp -r modules "$root/modules"
cp "$here/init" "$here/steps" "$root/"
echo "root:x:0:0:root:/root:/bin/sh" > "$root/etc/passwd"
echo "root:x:0:" > "$root/etc/group"
(cd "$root" && find . | busybox cpio -o -H newc 2> /dev/null) | gzip -1 > initrd
