# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# static mounts: what plain mode keeps comes through ssh

stserver() { head -n 1 "$dir/mnt.$1.pid"; }
stsees() { [ "$(timeout 20 "$LIMACTL" shell "$vm" timeout 5 cat "$1" 2>/dev/null </dev/null)" = "$2" ]; }
stback() { [ "$(stserver "$1")" != "$2" ] && stsees "$3" "$4"; }
stlogs() { [ "$(grep -cF "$1" "$dir/ha.stderr.log")" -ge "$2" ]; }

test_plainmounts() {
	beginguest plainmounts st
	a="$HOME/a b, 'c'"
	mkdir "$a" "$HOME/w" "$HOME/no"
	echo read >"$a/f"
	echo inner >"$HOME/w/f"
	cat >"$HOME/st.yaml" <<-END
		images: [{location: "$image"}]
		cpus: 1
		memory: 1GiB
		disk: 10GiB
		plain: true
		mounts:
		- {location: "$HOME/w", mountPoint: "/mnt/a b, 'c'/in", writable: true, static: true}
		- {location: "$a", mountPoint: "/mnt/a b, 'c'", static: true}
		- {location: "$HOME/no"}
	END
	mkdir "$a/in"
	m="/mnt/a b, 'c'"
	limit=600
	lc start --tty=false --name "$vm" "$HOME/st.yaml"
	status 0
	errhas READY
	errhas 'Running in plain mode without the mount '
	errlacks 'not there'
	if [ "$rc" != 0 ]; then
		ok 'a plain instance with static mounts starts'
		lc delete -f "$vm"
		finish
		return
	fi
	limit=60
	guestsays read cat "$m/f"
	sh_ touch "$m/new"
	errhas 'Read-only file system'
	fails test -e "$a/new"
	sh_ test -e "$HOME/no"
	status 1
	ln -s ../x/y "$a/link"
	guestsays ../x/y readlink "$m/link"
	ok 'plain: a static mount is there at READY, the others are not'
	guestsays inner cat "$m/in/f"
	sh_ sh -c "echo guest >\"$m/in/g\""
	same "$(cat "$HOME/w/g")" guest
	same "$(stat -c %u "$HOME/w/g")" "$uid"
	sh_ sh -c "stat -c %U \"$m/in/g\"; id -un"
	same "$(sort -u "$out" | wc -l)" 1
	ok 'a writable one, in a read-only one'
	sh_ ls /sys/class/virtio-ports /sys/bus/virtio/drivers/virtio_console
	outlacks vport
	fails test -e "$dir/mnt.0.sock"
	ok 'no virtio-serial'

	old=$(stserver 1)
	send KILL "$old"
	holds await 30 stback 1 "$old" "$m/f" read
	holds await 30 stsees "$m/in/f" inner
	filehas "$dir/ha.stderr.log" "The mount $a is not there in the guest, trying again"
	ok 'a server is killed: the mount is back, and the one in it'
	sh_ sudo pkill -KILL -x sshfs
	holds await 30 stsees "$m/in/f" inner
	holds await 30 stsees "$m/f" read
	ok 'sshfs is killed in the guest: both are back'
	old=$(stserver 0)
	send KILL "$(cat "$dir/ha.pid")"
	await 5 is "$vm" Broken || bad 'not Broken'
	guestsays inner cat "$m/in/f"
	lc start "$vm"
	status 0
	guestsays inner cat "$m/in/f"
	fails [ "$(stserver 0)" = "$old" ]
	ok 'the host agent is killed: mounts work on, and the next agent makes them anew'

	sh_ sudo mv /usr/bin/sshfs /usr/bin/sshfs.away
	status 0
	send KILL "$(stserver 0)"
	holds await 30 stlogs "The mount $HOME/w is not there in the guest, trying again: install the package sshfs in the guest" 1
	guestsays read cat "$m/f"
	sh_ sudo mv /usr/bin/sshfs.away /usr/bin/sshfs
	holds await 60 stsees "$m/in/f" inner
	ok 'no sshfs in the guest: the log says what to install, and then it is mounted'
	sh_ cat /proc/sys/kernel/random/boot_id
	id=$(cat "$out")
	lc shell "$vm" sudo reboot
	await 60 rebooted || bad 'no reboot'
	holds await 30 stsees "$m/in/f" inner
	ok 'a reboot of the guest'
	lc stop "$vm"
	status 0
	fails pgrep -f "sftp --pidfile $dir"
	fails pgrep -f "ssh -F $dir"
	ok 'stop leaves no server and no ssh'
	lc delete -f "$vm"
	status 0
	finish
}
