#!/bin/bash
# Runs a command under Debian's own kernel, in a virtual machine that sees this machine's files and
# changes none of them: for what the running kernel lacks, such as IPVS. Prints the command's
# output.
#
# usage: tests/machines/virtual.sh VARIABLE=VALUE... COMMAND...    as root, here; see make
# check-ipvs
set -eu -o pipefail
cd "$(dirname "$0")/../.."
PATH=$PATH:/usr/sbin:/sbin
place=$PWD/build/virtual
modules='virtio_pci 9pnet_virtio 9p overlay veth bridge crc32c_generic ip_vs ip_vs_wlc nf_nat nf_conntrack'

# The newest kernel; it is only unpacked, not installed.
get_kernel() {
	local package
	package=$(LC_ALL=C apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: //p' | head -n 1)
	[ -e "$place/$package" ] || {
		rm -rf "$place"
		mkdir -p "$place/unpacked"
		(cd "$place" && apt-get -q download -o APT::Sandbox::User=root "$package")
		dpkg -x "$place/$package"_*.deb "$place/unpacked"
		rm "$place"/*.deb
		touch "$place/$package"
	}
	version=${package#linux-image-}
}

# The first process that the kernel starts: it finds the files, and continues there.
make_first() {
	local first=$place/first module
	rm -rf "$first"
	mkdir -p "$first/bin" "$first/lib/modules/$version" "$first"/{proc,dev,below,above,root}
	cp "$(command -v busybox)" "$first/bin"
	cp "$place/unpacked/lib/modules/$version"/modules.{builtin,builtin.modinfo,order} "$first/lib/modules/$version"
	depmod -b "$place/unpacked" "$version"
	for module in $modules; do
		modprobe -d "$place/unpacked" -S "$version" --show-depends "$module"
	done | sed -n "s|^insmod $place/unpacked\(/[^ ]*\).*|\1|p" | sort -u |
		while read -r module; do
			install -D -m 644 "$place/unpacked$module" "$first$module"
		done
	depmod -b "$first" "$version"
	cat >"$first/init" <<-END
		#!/bin/busybox sh
		export PATH=/bin
		busybox mount -t proc proc /proc
		busybox --install -s /bin
		mount -t devtmpfs dev /dev
		for module in $modules; do modprobe \$module; done
		mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=1048576 files /below
		mount -t tmpfs tmpfs /above
		mkdir /above/new /above/work
		mount -t overlay -o lowerdir=/below,upperdir=/above/new,workdir=/above/work overlay /root
		for place in proc sys dev run tmp; do mount -t tmpfs tmpfs /root/\$place; done
		mount -t proc proc /root/proc
		mount -t sysfs sysfs /root/sys
		mount -t devtmpfs dev /root/dev
		mkdir -p /root/dev/pts /root/dev/shm
		mount -t devpts devpts /root/dev/pts
		exec switch_root /root /bin/bash "$place/second"
	END
	chmod 755 "$first/init"
	ln -sf /bin/busybox "$first/bin/sh"
	(cd "$first" && find . | cpio --quiet -o -H newc | gzip -1) >"$place/first.img"
}

# What continues there. The machine ends with it.
make_second() { # COMMAND...
	cat >"$place/second" <<-END
		export PATH=$PATH HOME=/root LANG=${LANG-C.UTF-8}
		hostname virtual
		ip link set lo up
		ln -s /proc/self/fd /dev/fd
		cd '$PWD'
		$(printf '%q ' env "$@") </dev/null >/dev/ttyS1 2>&1
		echo "\$?" >/dev/ttyS2
		sync
		echo o >/proc/sysrq-trigger
		sleep 60
	END
}

[ "$(id -u)" = 0 ] || { echo "tests/machines/virtual.sh: needs root, to read all files" >&2; exit 1; }
get_kernel
make_first
make_second "$@"
rm -f "$place/status"
timeout 1200 qemu-system-x86_64 -accel tcg -cpu max -smp 2 -m 2048 -nodefaults -no-reboot -display none \
	-kernel "$place/unpacked/boot/vmlinuz-$version" -initrd "$place/first.img" \
	-append 'console=ttyS0 quiet panic=-1' \
	-serial "file:$place/console" -serial stdio -serial "file:$place/status" \
	-virtfs local,path=/,mount_tag=files,security_model=none,readonly=on,multidevs=remap </dev/null
status=$(tr -d '\r\n' <"$place/status")
[ -n "$status" ] || { cat "$place/console" >&2; exit 1; }
exit "$status"
