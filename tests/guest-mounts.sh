# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# mounts: directories of the host in a guest, and what they survive

# guestsees FILE TEXT: within 20 s
guestsees() { await 20 sees "$1" "$2" || bad "the guest does not see $1"; }
sees() { [ "$(timeout 20 "$LIMACTL" shell "$vm" timeout 5 cat "$1" 2>/dev/null </dev/null)" = "$2" ]; }
# server N: the process that serves mount N, by its lock
server() { head -n 1 "$dir/mnt.$1.pid"; }
# another PID N: mount N has another server
another() { [ -s "$dir/mnt.$2.pid" ] && [ "$(server "$2")" != "$1" ] && kill -0 "$(server "$2")" 2>/dev/null; }

# degraded: list says that a mount is not there
degraded() { "$LIMACTL" list 2>&1 | grep -q 'has errors.*the mount .* is not there'; }

# mayvirtiofs: virtiofsd is here and may shut itself in
mayvirtiofs() {
	for v in /usr/libexec/virtiofsd /usr/lib/virtiofsd /usr/lib/qemu/virtiofsd; do
		[ ! -x $v ] || { unshare --user --mount true 2>/dev/null; return; }
	done
	return 1
}

test_mounts() {
	beginguest mounts mnt
	base="images: [{location: \"$image\"}]
cpus: 2
memory: 1GiB
disk: 10GiB
containerd: {user: false}
"
	file=lima-test.$$
	echo 'from the host' >"$HOME/file"
	mkdir "$HOME/inner" "$HOME/sub"
	printf '%s' "$base" >"$HOME/m.yaml"
	limit=600
	lc start --tty=false --name "$vm" "$HOME/m.yaml"
	status 0
	errhas READY
	errlacks 'not mounted'
	ok 'a start without a word of mounts'
	if [ "$rc" != 0 ]; then
		lc delete -f "$vm"
		finish
		return
	fi
	sh_ id -un
	guest=$(cat "$out")
	guestsays 'from the host' cat "$HOME/file"
	sh_ sh -c "echo x >'$HOME/new'; rm -f '$HOME/file'; chmod 777 '$HOME/file'; echo over >'$HOME/file'"
	errhas 'Read-only file system'
	same "$(cat "$HOME/file")" 'from the host'
	fails test -e "$HOME/new"
	guestsays "$guest" stat -c %U "$HOME/file"
	ok 'the home is there at once, read-only, and the user owns what the host user owns'
	sh_ sh -c "echo 'from the guest' >/tmp/lima/$file && chmod 640 /tmp/lima/$file"
	status 0
	same "$(cat "/tmp/lima/$file")" 'from the guest'
	same "$(stat -c '%u %a' "/tmp/lima/$file")" "$uid 640"
	guestsays "$guest" stat -c %U "/tmp/lima/$file"
	ok '/tmp/lima is writable on both sides'
	cd "$HOME/sub" || return
	guestsays "$HOME/sub" pwd
	cd "${LIMACTL%/*}" || return
	ok 'shell goes where the host is'
	echo secret >"$T/secret"
	ln -s ../secret "$HOME/out"
	sh_ sh -c "cat '$HOME/out' '$HOME/../secret'"
	outlacks secret
	guestsays ../secret readlink "$HOME/out"
	ok 'links and .. lead nowhere on the host'

	old=$(server 1)
	send KILL "$old"
	holds await 20 another "$old" 1
	guestsees "/tmp/lima/$file" 'from the guest'
	filehas "$dir/ha.stderr.log" 'The server of the mount /tmp/lima has ended'
	ok 'a server is killed: the mount is back'
	sh_ sudo pkill -KILL -f 'sshfs.*/tmp/lima'
	guestsees "/tmp/lima/$file" 'from the guest'
	ok 'sshfs is killed in the guest: the mount is back'
	send KILL "$(cat "$dir/ha.pid")"
	await 5 is "$vm" Broken || bad 'not Broken'
	old=$(server 1)
	guestsays 'from the guest' cat "/tmp/lima/$file"
	lc start "$vm"
	status 0
	same "$(server 1)" "$old"
	guestsays 'from the guest' cat "/tmp/lima/$file"
	ok 'the host agent is killed: mounts work on, and the next agent adopts their servers'
	send KILL "$old"
	holds await 20 another "$old" 1
	guestsees "/tmp/lima/$file" 'from the guest'
	ok 'an adopted server is killed: the mount is back'
	send KILL "$(cat "$dir/ha.pid")"
	send KILL "$(server 1)"
	sleep 2
	sh_ timeout 5 ls /tmp/lima
	status 0
	outlacks "$file"
	lc start "$vm"
	guestsees "/tmp/lima/$file" 'from the guest'
	ok 'agent and server are killed: the guest does not hang, and start brings both back'
	sh_ cat /proc/sys/kernel/random/boot_id
	id=$(cat "$out")
	lc shell "$vm" sudo reboot
	await 60 rebooted || bad 'no reboot'
	guestsees "/tmp/lima/$file" 'from the guest'
	guestsees "$HOME/file" 'from the host'
	ok 'a reboot of the guest'

	limit=60
	lc stop "$vm"
	status 0
	a="$HOME/a b, \"c\" 'd' ü \\e"
	mkdir "$a"
	echo odd >"$a/f"
	echo in >"$HOME/inner/f"
	stock=
	if [ -x /usr/lib/openssh/sftp-server ] || [ -x /usr/libexec/openssh/sftp-server ]; then
		stock='- {location: "~/stock", mountPoint: /mnt/stock, writable: true, sshfs: {sftpDriver: openssh-sftp-server}}'
	fi
	cat >"$dir/lima.yaml" <<-END
		${base}mountInotify: true
		mounts:
		- {location: "$HOME/inner", mountPoint: "$HOME/sub", writable: true}
		- location: "~"
		- location: '$(printf %s "$a" | sed "s/'/''/g")'
		  mountPoint: '/mnt/$(basename "$a" | sed "s/'/''/g")/{{.User}}'
		  writable: true
		  sshfs: {cache: false}
		- {location: "~/missing/x", mountPoint: "{{.Home}}/m/x", writable: true}
		- {location: "~/links", sshfs: {followSymlinks: true}, mountPoint: /mnt/links}
	END
	[ -z "$stock" ] || printf '%s\n' "$stock" >>"$dir/lima.yaml"
	mkdir "$HOME/links"
	echo target >"$HOME/links/t"
	ln -s t "$HOME/links/l"
	ln -s ../../secret "$HOME/links/out"
	limit=120
	lc start --tty=false "$vm"
	status 0
	errlacks 'not mounted'
	guestsays odd cat "/mnt/${a##*/}/$guest/f"
	sh_ touch "/mnt/${a##*/}/$guest/new"
	holds test -e "$a/new"
	sh_ sh -c 'df | grep -F ü'
	outhas ":$a"
	ok 'blanks, quotes, commas, backslashes and umlauts in paths'
	guestsays in cat "$HOME/sub/f"
	sh_ sh -c "echo w >'$HOME/sub/w'"
	same "$(cat "$HOME/inner/w")" w
	ok 'a writable mount in a read-only one that comes after it'
	holds test -d "$HOME/missing/x"
	guestsays "$guest $guest" sh -c 'stat -c %U ~/m ~/m/x | xargs'
	ok 'a missing directory is made, and mount points in the home are the user'"'s"
	guestsays 'regular file' stat -c %F /mnt/links/l
	sh_ cat /mnt/links/out
	outlacks secret
	ok 'followSymlinks, but not out of the mount'
	if [ -n "$stock" ]; then
		sh_ sudo sh -c 'echo stock >/mnt/stock/f; cat /mnt/stock/f'
		outis stock
		same "$(cat "$HOME/stock/f")" stock
		errlacks 'not mounted'
		run sh -c '"$0" info | jq -r ".shares.$1.mounts[] | [.mountPoint, .notConfined] | @tsv" | grep -v "	$"' "$LIMACTL" "$vm"
		outis '/mnt/stock	openssh-sftp-server: the guest can reach all that you can'
		filehas "$dir/ha.stderr.log" 'is served by openssh-sftp-server'
		old=$(server 5)
		send KILL "$old"
		holds await 20 another "$old" 5
		guestsees /mnt/stock/f stock
		ok 'sftpDriver: openssh-sftp-server, and info says what it can reach'
	else
		skip 'sftpDriver: openssh-sftp-server' 'no OpenSSH sftp-server here'
	fi
	if have musl-gcc; then
		run musl-gcc -w -O1 -static -o "$HOME/serve" tests/serve.c
		status 0
		mkdir "$HOME/inner/old"
		echo 1 >"$HOME/inner/old/f"
		when=$(stat -c %y "$HOME/inner/old/f")
		"$LIMACTL" shell "$vm" "$HOME/serve" watch "$HOME/sub" "$HOME/sub/old/f" >"$T/changes" 2>/dev/null </dev/null &
		watcher=$!
		holds await 20 grep -q ready "$T/changes"
		echo 2 >>"$HOME/inner/old/f"
		holds await 20 grep -q "^$HOME/sub/old/f - " "$T/changes"
		fails [ "$(stat -c %y "$HOME/inner/old/f")" = "$when" ]
		when=$(stat -c %y "$HOME/inner/old/f")
		mkdir "$HOME/inner/nd"
		echo 3 >"$HOME/inner/nd/f"
		holds await 20 grep -q "^$HOME/sub nd " "$T/changes"
		same "$(stat -c %y "$HOME/inner/old/f")" "$when"
		send TERM $watcher
		"$LIMACTL" shell "$vm" "$HOME/serve" watch "$HOME/sub/nd" >"$T/changes" 2>/dev/null </dev/null &
		watcher=$!
		holds await 20 grep -q ready "$T/changes"
		ln -s /etc/passwd "$HOME/inner/nd/link"
		echo 4 >"$HOME/inner/nd/g"
		holds await 20 grep -q "^$HOME/sub/nd g " "$T/changes"
		send TERM $watcher
		lc shell "$vm" sudo pkill -x serve
		# what the agent sets is no change: it must not go round
		changes=$(grep -c . "$T/changes")
		fails [ "$changes" -gt 12 ]
		ok 'mountInotify: who watches in the guest hears of changes on the host, which keep their times'
	else
		skip mountInotify 'no musl-gcc to build the watcher'
	fi
	# of the outer one: what is in it comes back as well
	send KILL "$(server 1)"
	guestsees "$HOME/file" 'from the host'
	guestsees "$HOME/sub/w" w
	ok 'the server of the outer mount is killed: both are back'
	rm -f "/tmp/lima/$file"
	limit=60
	lc stop "$vm"
	status 0
	fails grep -q level=error "$err"
	sed -i "s,~/missing/x,/proc/missing/x," "$dir/lima.yaml"
	fs=fuse.sshfs
	if mayvirtiofs; then
		fs=virtiofs
		echo 'mountType: virtiofs' >>"$dir/lima.yaml"
	fi
	limit=120
	lc start --tty=false "$vm"
	errhas 'missing/x'
	errhas 'so the guest does not get it'
	status 0
	same "$(grep -c missing/x "$err")" 1
	errlacks 'not mounted'
	guestsays in cat "$HOME/sub/f"
	ok 'a directory that cannot be made is said once, and the others are there'
	if [ $fs = virtiofs ]; then
		guestsays virtiofs sh -c "while read -r _ d t _; do [ \"\$d\" != '$HOME' ] || echo \$t; done </proc/mounts"
		guestsays "$guest" stat -c %U "$HOME/file"
		sh_ sh -c "echo v >'$HOME/sub/v' && chmod 750 '$HOME/sub/v' && ln -s v '$HOME/sub/vl' && stat -c %U '$HOME/sub/v'"
		outis "$guest"
		same "$(cat "$HOME/inner/vl")" v
		same "$(stat -c '%u %a' "$HOME/inner/v")" "$uid 750"
		guestsays odd cat "/mnt/${a##*/}/$guest/f"
		sh_ sudo sh -c "echo root >'$HOME/sub/r' && mkdir '$HOME/sub/rd' && stat -c %U '$HOME/sub/r' '$HOME/sub/rd' | sort -u"
		outis "$guest"
		same "$(stat -c %u "$HOME/inner/r" "$HOME/inner/rd" | sort -u)" "$uid"
		guestsays root cat "$HOME/sub/r"
		ok 'mountType: virtiofs, with the same owners on both sides, also of what root makes in the guest'
		sh_ sudo mount -o remount,rw "$HOME"
		sh_ touch "$HOME/file" "$HOME/no"
		errhas 'Read-only file system'
		fails test -e "$HOME/no"
		sh_ cat "$HOME/out"
		outlacks secret
		ok 'virtiofs: the host keeps it read-only, whatever the guest says'
		send KILL "$(server 0)"
		holds await 10 degraded
		filehas "$dir/ha.stderr.log" "virtiofsd of the mount $HOME/inner has ended, was killed by signal 9"
		guestsays 'from the host' cat "$HOME/file"
		ok 'a virtiofsd is killed: list names the mount, the others go on'
	else
		skip 'mountType: virtiofs' 'no virtiofsd, or no user namespaces here'
	fi
	limit=60
	lc delete -f "$vm"
	status 0
	finish
}
