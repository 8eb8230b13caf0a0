# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# mountInotify: what the guest agent is told of changes; a socat stands for it

# toldof FILE: the agent was
toldof() { grep -q "^inotify [0-9]* [0-9]* $HOME/share/$1\$" "$T/told"; }

test_inotify() {
	begin inotify
	if ! have socat; then
		skip 'all of it' 'socat is not installed'
		finish
		return
	fi
	buildfakes
	PATH=$fakes:$PATH
	mkdir -p "$HOME/share/old"
	mk ino "images: [{location: /etc/profile}]
disk: 1MiB
mountInotify: true
mounts: [{location: \"$HOME/share\", writable: true}]
"
	status 0
	dir=$LIMA_HOME/ino
	plan "$goodboot"
	mkfifo "$T/says"
	socat - "UNIX-LISTEN:$dir/ga.sock" <"$T/says" >"$T/told" &
	socat=$!
	exec 7>"$T/says"
	printf '\nlima-guestagent 1\nbegin\nend\n' >&7
	holds await 5 test -S "$dir/ga.sock"
	lc start --tty=false ino
	status 0
	ha=$(cat "$dir/ha.pid")
	holds await 10 grep -q '^time ' "$T/told"
	echo 1 >"$HOME/share/f"
	holds await 10 toldof f
	mkdir "$HOME/share/new"
	echo 2 >"$HOME/share/new/f"
	holds await 10 toldof new/f
	ok 'files, and such in new directories'

	# a guest that moves a watched directory away, puts a link there, and is quick
	mkdir -p "$T/beside/x/deep" "$HOME/share/a/x"
	echo secret >"$T/beside/x/deep/leak"
	holds await 10 toldof a/x
	send STOP "$ha"
	mv "$HOME/share/a" "$HOME/share/b"
	ln -s "$T/beside" "$HOME/share/a"
	mkdir "$HOME/share/b/x/deep"
	send CONT "$ha"
	echo 3 >"$HOME/share/b/x/g"
	holds await 10 toldof b/x/g
	filelacks "$T/told" leak
	ok 'a link of the guest leads to nothing beside the mount'

	# more than the kernel keeps (fs.inotify.max_queued_events)
	send STOP "$ha"
	(cd "$HOME/share/old" && seq 8000 | xargs touch && seq 8000 | xargs rm)
	mkdir "$HOME/share/late"
	send CONT "$ha"
	holds await 10 grep -q 'mountInotify: files change faster' "$dir/ha.stderr.log"
	sleep 1
	echo 4 >"$HOME/share/late/f"
	holds await 10 toldof late/f
	ok 'after more changes than the kernel keeps, new directories are heard of'
	exec 7>&-
	lc delete -f ino
	status 0
	wait $socat || :
	finish
}
