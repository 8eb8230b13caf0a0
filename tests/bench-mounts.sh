#!/bin/sh
# bench-mounts.sh - the same files through each kind of mount: MB/s and seconds
#
# 128 MB written and read, and 5,000 files of 1 KB found and read, in the guest,
# its caches dropped before. The reference of each row is our SFTP server and sshfs
# carried by an ssh of their own, as limactl 2.2 does it. The kernel of the image
# has no 9p: BENCH_9P=1 builds another image. BENCH_MB and BENCH_FILES are other
# numbers than 128 and 5,000.
set -eu
cd "$(dirname "$0")/.."
limactl=${LIMACTL:-$PWD/limactl}
LIMA_HOME=$(mktemp -d /tmp/lima-bench.XXXXXX)
export LIMA_HOME
tmp=$LIMA_HOME/_bench
mkdir "$tmp"
share=$tmp/share
mb=${BENCH_MB:-128} files=${BENCH_FILES:-5000}
finish() {
	"$limactl" --log-level=fatal delete -f bm >/dev/null 2>&1 || :
	rm -rf "$LIMA_HOME"
}
trap finish EXIT
trap 'exit 1' INT TERM HUP

d=0
while [ $d -lt $((files / 100)) ]; do
	mkdir -p "$share/small/$d"
	f=0
	while [ $f -lt 100 ]; do
		head -c 1024 /dev/zero >"$share/small/$d/$f"
		f=$((f + 1))
	done
	d=$((d + 1))
done
# by 9p the guest is who it says it is
chmod 777 "$share"
cat >"$tmp/measure" <<'END'
cd "$1" || exit
mb=$2
ms() { echo $(($(date +%s%N) / 1000000)); }
drop() { sync; echo 3 | sudo tee /proc/sys/vm/drop_caches >/dev/null; }
took() { a=$(ms); "$@" >/dev/null 2>&1 || { echo failed; return; }; echo $(($(ms) - a)); }
rm -f big
took dd if=/dev/zero of=big bs=1M count="$mb" conv=fsync
drop
took cat big
drop
took find small -type f -size +0
drop
took sh -c 'cat small/*/*'
rm -f big
END
# measure NAME DIR: write, read, find and cat of DIR in the guest, ms, into $tmp/NAME
measure() { timeout 900 "$limactl" --log-level=error shell bm sh -s -- "$2" "$mb" <"$tmp/measure" >"$tmp/$1"; }
# boot TYPE IMAGE
boot() {
	cat >"$tmp/bm.yaml" <<-END
		images: [{location: "$2"}]
		cpus: 2
		memory: 1GiB
		disk: 10GiB
		containerd: {user: false}
		mountType: $1
		mounts: [{location: "$share", mountPoint: /mnt/share, writable: true}]
	END
	"$limactl" --log-level=error --tty=false start --name=bm "$tmp/bm.yaml"
}
end() { "$limactl" --log-level=fatal delete -f bm; }

boot reverse-sshfs mmdebstrap:bookworm
measure sshfs /mnt/share
mkfifo "$tmp/back"
# shellcheck disable=SC2094  # a pipe
"$limactl" sftp --guest-uid=1000 -- "$share" <"$tmp/back" |
	ssh -F "$LIMA_HOME/bm/ssh.config" -axT -o ControlMaster=no -o ControlPath=none lima-bm \
		'sudo sh -c "mkdir -p /mnt/ssh && exec sshfs :/ /mnt/ssh -f -o slave,allow_other"' >"$tmp/back" 2>"$tmp/ssh.err" &
until "$limactl" --log-level=error shell bm grep -q /mnt/ssh /proc/mounts; do sleep 1; done
measure ssh /mnt/ssh
end
boot virtiofs mmdebstrap:bookworm
measure virtiofs /mnt/share
end
if [ -n "${BENCH_9P-}" ]; then
	boot 9p "mmdebstrap:bookworm,linux-image-$(dpkg --print-architecture)"
	measure 9p /mnt/share
	end
fi

# row TEXT LINE UNIT: of each kind, beside ssh
row() {
	for k in sshfs virtiofs 9p; do
		[ -e "$tmp/$k" ] || continue
		awk -v w="$k: $1" -v a="$(sed -n "$2p" "$tmp/$k")" -v b="$(sed -n "$2p" "$tmp/ssh")" -v u="$3" -v m="$mb" 'BEGIN {
			if (a !~ /^[0-9]+$/ || b !~ /^[0-9]+$/) { printf "%-44s %9s %9s\n", w, a, b; exit }
			if (u == "MB/s") { a = m * 1000 / (a + 1); b = m * 1000 / (b + 1) }
			printf "%-44s %9.1f %9.1f %6.2f  %s\n", w, a, b, a / b, u }'
	done
}
printf '%-44s %9s %9s %6s\n' 'mounts / sshfs carried by ssh' ours reference ratio
row "$mb MB written" 1 MB/s
row "$mb MB read" 2 MB/s
row "find of $files files" 3 ms
row "read of $files files of 1 KB" 4 ms
[ -n "${BENCH_9P-}" ] || echo '9p: left out (BENCH_9P=1 builds an image whose kernel has it)'
