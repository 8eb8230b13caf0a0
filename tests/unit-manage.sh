# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# restart, protect, factory-reset, clone, rename and what makes no sense here.

test_manage() {
	begin manage
	buildfakes
	PATH=$fakes:$realpath
	mk dev
	status 0
	d=$LIMA_HOME/dev

	lc protect dev nope
	status 1
	logged info 'Protected `dev`'
	errhas "failed to inspect instance \`nope\`: open $LIMA_HOME/nope/lima.yaml: no such file or directory"
	mode "$d/protected" 400
	lc protect dev
	status 0
	logged warning 'Instance `dev` is already protected. Skipping.'
	ok protect
	lc delete -f dev
	fatal 'failed to delete instance `dev`: instance is protected to prohibit accidental removal (Hint: use `limactl unprotect`)'
	lc factory-reset dev
	fatal 'instance is protected to prohibit accidental factory-reset (Hint: use `limactl unprotect`)'
	ok 'protected: neither deleted nor reset'

	# clone
	mkdir "$d/sock"
	echo hello >"$d/sock/file"
	: >"$d/old.tmp"
	lc clone dev copy
	status 0
	noout
	noerr
	same "$(cat "$LIMA_HOME/copy/sock/file")" hello
	holds cmp "$d/lima.yaml" "$LIMA_HOME/copy/lima.yaml"
	holds cmp "$d/disk" "$LIMA_HOME/copy/disk"
	mode "$LIMA_HOME/copy" 700
	for f in protected old.tmp; do fails test -e "$LIMA_HOME/copy/$f"; done
	is copy Stopped || bad 'the clone is not Stopped'
	ok 'clone: silent, all of it, and not protected'
	[ "$(stat -c %i "$d/disk")" != "$(stat -c %i "$LIMA_HOME/copy/disk")" ] || bad 'the disk is shared'
	if have qemu-img; then
		holds qemu-img check -q "$LIMA_HOME/copy/disk"
	fi
	truncate -s 3G "$d/hole"
	echo end >>"$d/hole"
	lc clone --cpus=1 dev copy2
	status 0
	noerr
	same "$(du -k "$LIMA_HOME/copy2/hole" | awk '{ print ($1 < 100) }')" 1
	same "$(tail -n 1 "$LIMA_HOME/copy2/hole" | tr -d '\0')" end
	rm "$d/hole"
	same "$("$LIMACTL" list --format '{{.CPUs}}' copy2)" 1
	filelacks "$d/lima.yaml" cpus
	ok 'clone: holes stay holes, flags edit the copy alone'
	lc clone --yes dev copy3
	status 0
	logged warning '--yes flag is deprecated (--tty=false is still supported and works in the same way. Also consider using --start)'
	ok 'clone --yes'
	lc clone nope x
	fatal 'instance `nope` not found'
	lc clone dev dev
	fatal 'new instance name `dev` must be different from `dev`'
	lc clone dev copy
	fatal 'instance `copy` already exists'
	lc clone dev 'a..b'
	fatal 'instance name `a..b` is not a valid identifier: identifier `a..b` must match ^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$'
	lc clone dev x.yaml
	fatal 'instance name `x.yaml` must not end with .yml or .yaml suffix'
	lc clone dev "$(printf 'a%.0s' 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6)"
	status 1
	errhas 'UNIX_PATH_MAX=108'
	lc clone --cpus=-1 dev x
	fatalhas 'error while processing flag `cpus`'
	fails test -e "$LIMA_HOME/x"
	ok 'clone: what is refused, nothing left'

	# rename
	lc rename copy other
	status 0
	noout
	noerr
	fails test -e "$LIMA_HOME/copy"
	is other Stopped || bad 'no instance other'
	lc rename --cpus=1 other third
	status 0
	same "$("$LIMACTL" list --format '{{.CPUs}}' third)" 1
	lc rename third dev
	fatal 'instance `dev` already exists'
	lc rename nope x
	fatal 'instance `nope` not found'
	lc rename third third
	fatal 'new instance name `third` must be different from `third`'
	ok rename

	lc unprotect dev
	status 0
	logged info 'Unprotected `dev`'
	fails test -e "$d/protected"
	lc unprotect dev
	status 0
	logged warning "Instance \`dev\` isn't protected. Skipping."
	ok unprotect

	# restart
	plan "$goodboot"
	lc restart dev
	status 0
	noout
	logged warning 'The instance is not running, continuing with the restart'
	errhas 'READY. Run `limactl shell dev` to open the shell.'
	is dev Running || bad 'dev is not Running'
	a=$(agentpid dev)
	ok 'restart of a stopped instance starts it'
	lc clone dev x
	fatal 'cannot clone a running instance'
	lc rename dev x
	fatal 'cannot rename a running instance'
	ok 'a running instance is neither cloned nor renamed'
	lc restart --cpus=1 dev
	status 0
	logged info 'Instance `dev` configuration edited'
	errhas 'The instance dev has shut down'
	errhas 'READY.'
	[ "$(agentpid dev)" != "$a" ] || bad 'the same host agent'
	pair -smp 1,sockets=1,cores=1,threads=1
	filehas "$d/lima.yaml" 'cpus: 1'
	a=$(agentpid dev)
	ok 'restart: stop and start with new flags'
	plan "deaf
$goodboot"
	lc restart -f dev
	status 0
	logged info 'Restarting the instance forcibly'
	errhas 'READY.'
	[ "$(agentpid dev)" != "$a" ] || bad 'the same host agent'
	ok 'restart -f'
	lc restart nope
	fatal "open $LIMA_HOME/nope/lima.yaml: no such file or directory"
	ok 'restart of a missing instance'

	# factory-reset
	mkdir "$d/sock/deep"
	lc factory-reset dev
	status 0
	noout
	logged info "Removing \`$d/disk\`"
	logged info 'Instance `dev` has been factory reset'
	same "$(find "$d" -mindepth 1 -maxdepth 1 | sed 's,.*/,,' | sort | tr '\n' ' ')" 'cloud-config.yaml lima-version lima.yaml sock '
	is dev Stopped || bad 'dev is not Stopped'
	plan "$goodboot"
	lc start dev
	status 0
	ok 'factory-reset ends the instance, leaves its configuration, and it starts anew'
	# a start with flags that waits, while the VM gets to run
	mk race
	h=$LIMA_HOME/race
	exec 7<"$h"
	flock 7
	plan "$goodboot"
	background start --cpus=7 race 7<&-
	await 5 grep -q 'Waiting for another limactl' "$err" || bad 'it does not wait'
	setsid "$LIMACTL" hostagent --pidfile "$h/ha.pid" --socket "$h/ha.sock" race \
		>"$h/ha.stdout.log" 2>"$h/ha.stderr.log" </dev/null 7<&- &
	await 10 grep -q '"running":true' "$h/ha.stdout.log" || bad 'it does not run'
	exec 7<&-
	collect 30
	status 0
	logged warning 'The VM of `race` runs: flags that change its configuration are not applied'
	filelacks "$h/lima.yaml" 'cpus: 7'
	lc delete -f race
	ok 'start: flags do not change what another start has made run meanwhile'
	head -c 100000 /dev/zero | gzip >"$T/half.gz"
	mk half "{images: [location: $T/half.gz], disk: 1M, mounts: []}"
	status 0
	h=$LIMA_HOME/half
	lc factory-reset half
	mkdir "$T/killer"
	printf '#!/bin/sh\nhead -c 4096 /dev/zero\nkill -KILL "$PPID"\n' >"$T/killer/gzip"
	chmod +x "$T/killer/gzip"
	run env PATH="$T/killer:$PATH" "$LIMACTL" start half
	[ "$rc" != 0 ] || bad 'it was not killed'
	plan "$goodboot"
	lc start half
	status 0
	holds filesize "$h/basedisk" 100000
	fails test -e "$h/basedisk.tmp"
	lc delete -f half
	ok 'a start that is killed while the image comes leaves no half of it'
	lc factory-reset nope
	status 0
	noout
	logged info 'Instance `nope` not found'
	ok 'factory-reset of a missing instance'

	plan "$goodboot"
	lc clone --tty=false --start copy2 started
	status 0
	is started Running || bad 'the clone does not run'
	ok 'clone --start'

	lc sudoers --check x
	status 1
	lc sudoers
	fatal 'sudoers command is only supported on macOS right now'
	ok sudoers

	lc delete -f dev copy2 copy3 third started
	status 0
	finish
}
