# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# copy with both backends, shell's environment, sync and reconnect, snapshots of
# a running guest, a tunnel, and a clone with a name of its own.

# guest COMMAND...: its words on stdout, in the first instance
guest() { timeout 60 "$LIMACTL" shell src "$@" </dev/null 2>>"$err"; }
# tree DIR: what is in it, a word each
tree() { (cd "$1" 2>/dev/null && find . -mindepth 1 | LC_ALL=C sort | tr '\n' ' '); }
guesttree() { guest sh -c "cd '$1' && find . -mindepth 1 | LC_ALL=C sort | tr '\n' ' '"; }
# up: a directory goes to the guest; up BACKEND SOURCE TARGET RESULT-DIR TREE
up() {
	guest sh -c 'rm -rf ~/x && mkdir -p ~/x/old' >/dev/null
	lc copy --backend="$1" -r "$2" "src:$3"
	status 0
	noout
	same "$(guesttree "$4")" "$5"
}
down() {
	rm -rf "$T/down"
	mkdir -p "$T/down/old"
	lc copy --backend="$1" -r "src:$2" "$T/down/$3"
	status 0
	noout
	same "$(tree "$T/down/$4")" "$5"
}

test_copy() {
	beginguest guestcopy src
	for p in "$qemu" qemu-img ssh scp rsync; do
		if ! have "$p"; then
			skip 'all of it' "$p is not installed"
			return
		fi
	done
	printf 'images:\n- location: "%s"\ncpus: 1\nmemory: 512MiB\ndisk: 20GiB\nmounts: []\ncontainerd: {system: false, user: false}\n' "$image" >"$HOME/src.yaml"
	limit=900
	lc start --tty=false --name src "$HOME/src.yaml"
	status 0
	ok 'a guest to copy to'
	if [ "$rc" != 0 ]; then
		timeout 60 "$LIMACTL" delete -f src >/dev/null 2>&1
		finish
		return
	fi
	d=$LIMA_HOME/src

	# files
	for b in scp rsync auto; do
		lc cp --backend=$b src:/etc/hostname "$T/hostname"
		status 0
		noout
		noerr
		same "$(cat "$T/hostname")" lima-src
		rm "$T/hostname"
		printf 'a\0b' >"$T/in put"
		lc cp --backend=$b "$T/in put" 'src:a b'
		status 0
		noerr
		same "$(guest sh -c 'od -An -c <"a b"' | tr -d ' \n')" 'a\0b'
		lc cp --backend=$b src:/etc/hostname src:/etc/shells "$T"
		[ $b = rsync ] || status 0
		[ $b = rsync ] || holds test -s "$T/shells"
		rm -f "$T/shells" "$T/hostname"
		lc cp --backend=$b src:/nonexistent "$T/none"
		[ "$rc" != 0 ] || bad 'a missing file is copied'
		noout
		errlacks level=
		ok "copy by $b: there and back, blanks, several, a missing one"
	done
	lc cp -v --backend=rsync src:/etc/hostname "$T/"
	outhas hostname
	rm -f "$T/hostname"
	lc cp --backend=auto src:/etc/hostname src:hn
	status 0
	same "$(guest cat hn)" lima-src
	ok 'copy -v shows it; from a guest to itself'

	# directories and slashes
	mkdir -p "$T/dir/sub"
	echo 1 >"$T/dir/one"
	echo 2 >"$T/dir/sub/two"
	in='./one ./sub ./sub/two ' under='./dir ./dir/one ./dir/sub ./dir/sub/two '
	up scp "$T/dir" x/new x/new "$in"
	up scp "$T/dir" x/old x/old "$under"
	up scp "$T/dir" x/old/ x/old "$under"
	up rsync "$T/dir" x/new x/new "$in"
	up rsync "$T/dir" x/old x/old "$in"
	up rsync "$T/dir/" x/old x/old "$under"
	up rsync "$T/dir" x/old/ x/old "$under"
	up rsync "$T/dir/" x/old/ x/old "$under"
	ok 'copy -r to the guest: slashes'
	guest sh -c 'rm -rf ~/dir; mv ~/x/old/dir ~/dir' >/dev/null
	down scp dir new new "$in"
	down scp dir old old "$under"
	down rsync dir new new "$in"
	down rsync dir old old "$in"
	down rsync dir/ old old "$in"
	down rsync dir/ old/ old "$in"
	ok 'copy -r from the guest: slashes'

	# shell
	run env FOO='b  a"r' SSH_NO=1 "$LIMACTL" shell --preserve-env src sh -c 'echo "$FOO,$SSH_NO,$HOME"'
	status 0
	outis "b  a\"r,,$(guest sh -c 'echo $HOME')"
	guest sh -c 'echo "export FOO=profile" >>~/.bash_profile' >/dev/null
	run env FOO=host "$LIMACTL" shell --preserve-env src printenv FOO
	outis profile
	guest rm .bash_profile >/dev/null
	ok '--preserve-env, and the profile has the last word'
	guest sudo groupadd newcomers
	guest sudo sh -c 'usermod -aG newcomers "$SUDO_USER"'
	fails sh -c '"$1" shell src id -nG | grep -qw newcomers' sh "$LIMACTL"
	limit=60
	lc shell --reconnect src id -nG
	status 0
	outhas newcomers
	logged info 'Exiting ssh session for the instance `src`'
	ok '--reconnect: new groups'
	p="$T/s y'n\"c/proj"
	mkdir -p "$p"
	echo 1 >"$p/one"
	echo 2 >"$p/two"
	ln -s one "$p/link"
	limit=60
	run env HOME="$HOME" sh -c 'cd "$1" && shift && exec "$@"' sh "$p" "$LIMACTL" shell --sync . --yes src sh -c 'pwd; rm two; echo 3 >three; chmod 711 three; ln -sf three link'
	status 0
	outhas "$p"
	same "$(tree "$p")" './link ./one ./three '
	mode "$p/three" 711
	same "$(readlink "$p/link")" three
	same "$(stat -c %u "$p/three")" "$uid"
	rm -rf "$T/s y"*
	ok '--sync: deletions, modes and links come back'

	# snapshots of a running guest
	guest sh -c 'echo before >~/state; sync' >/dev/null
	limit=120
	lc snapshot create src --tag one
	status 0
	logged info 'Sending HMP savevm command'
	errlacks output:
	lc snapshot list src --quiet
	outis one
	guest sh -c 'echo after >~/state; sync; sleep 6' >/dev/null
	limit=120
	lc snapshot apply src --tag one
	status 0
	errlacks output:
	limit=60
	lc shell src cat state
	status 0
	outis before
	now=$(date +%s)
	clock=$(guest date +%s)
	[ "${clock:-0}" -ge $((now - 3)) ] || bad "the guest's clock says $clock at $now"
	is src Running || bad 'not Running'
	lc snapshot delete src --tag one
	status 0
	lc snapshot list src --quiet
	noout
	lc snapshot apply src --tag none
	status 0
	errhas 'does not exist'
	same "$(guest echo runs)" runs
	ok 'snapshots of a running guest: back in time, and ssh and the clock work'

	# tunnel
	if have curl; then
		limit=30
		lc tunnel src
		status 0
		port=$(sed -n 's/.*127\.0\.0\.1:\([0-9]*\).*/\1/p' "$out")
		# the guest's sshd is a server that is always there
		curl -s -x "socks5h://127.0.0.1:$port" http://127.0.0.1:22/ --http0.9 --max-time 10 -o "$T/ban" || :
		filehas "$T/ban" SSH-2.0
		ok 'tunnel: the guest by a SOCKS proxy'
	else
		skip tunnel 'curl is not installed'
	fi

	# a clone
	lc stop src
	status 0
	lc clone src src.two
	status 0
	noout
	noerr
	limit=300
	lc start src.two
	status 0
	lc shell src.two hostname
	outis lima-src-two
	lc shell src.two cat state
	outis before
	ok "a clone boots, with the disk and a name of its own"
	limit=300
	lc start src
	status 0
	lc cp --backend=scp src:/etc/hostname src.two:from
	status 0
	noerr
	lc shell src.two cat from
	outis lima-src
	same "$(find "$LIMA_HOME" -name 'copy.*' | wc -l)" 0
	lc cp src.two:/etc/hostname src:/etc/shells "$T/down"
	status 0
	same "$(cat "$T/down/hostname")" lima-src-two
	ok 'copy from guest to guest, and from two at once'
	lc delete -f src src.two
	status 0
	finish
}
