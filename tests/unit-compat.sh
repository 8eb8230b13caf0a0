# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# What scripts written for limactl rely on: texts, streams and shapes.

# narrow COLUMNS ARGS...: list on a terminal of that width
narrow() {
	c=$1
	shift
	run script -qec "stty cols $c; '$LIMACTL' list $*" /dev/null
	tr -d '\r' <"$out" >"$out.1"
	mv "$out.1" "$out"
}

test_compat() {
	begin compat

	# create
	mk foo
	status 0
	noout
	logged info 'Terminal is not available, proceeding without opening an editor'
	logged info 'Run `limactl start foo` to start the instance.'
	ok 'create says what it does, on stderr'
	printf '%s\n' "$tiny" >"$T/foo.yaml"
	for w in "$T/foo.yaml" "file://$T/foo.yaml" foo; do
		lc create "$w"
		fatal 'instance `foo` already exists'
	done
	lc start "$T/foo.yaml"
	fatal "instance \`foo\` already exists (\`$LIMA_HOME/foo\`)"
	ok 'create and start of a template whose instance exists'

	# list
	lc ls --list-fields
	status 0
	noerr
	same "$(tr '\n' ' ' <"$out")" 'AdditionalDisks Arch AutoStartedIdentifier CPUs Config Dir Disk DriverPID Errors HostAgentPID Hostname LimaVersion Memory Message Name Networks Param Protected SSHAddress SSHConfigFile SSHLocalPort Status VMType '
	lc ls --list-fields --format json
	fatal 'option --list-fields conflicts with option --format'
	ok 'list --list-fields'
	if have script; then
		for w in '79:STATUS SSH CPUS MEMORY DISK' '80:STATUS SSH CPUS MEMORY DISK DIR' '88:STATUS SSH ARCH CPUS MEMORY DISK DIR' '96:STATUS SSH VMTYPE ARCH CPUS MEMORY DISK DIR'; do
			narrow "${w%%:*}" foo
			same "$(head -n 1 "$out" | tr -s ' ')" "NAME ${w#*:}"
		done
		narrow 40 --all-fields foo
		same "$(head -n 1 "$out" | tr -s ' ')" 'NAME STATUS SSH VMTYPE ARCH CPUS MEMORY DISK DIR'
		ok 'list in a narrow terminal'
	else
		skip 'list in a narrow terminal' 'no script(1)'
	fi

	# what nobody set is empty, whatever kind it is
	while IFS='|' read -r t want; do
		lc list --format "$t" foo
		outis "$want"
	done <<-'END'
		{{.Config.Env}} {{.Config.Param}} {{.Config.CPUType}}|map[] map[] map[]
		{{.Config.DNS}} {{.Config.Provision}} {{.Config.Probes}} {{.Config.Networks}} {{.Config.CopyToHost}}|[] [] [] [] []
		{{.Config.Message}}{{.Config.MountType}}.|.
		{{len .Config.DNS}}{{range .Config.DNS}}x{{end}}{{if .Config.Env}}y{{end}}|0
		{{.Config.Env.FOO}}|<no value>
	END
	ok 'list --format: unset lists and maps'

	# instances of one text are read once, and are not each other
	for w in twin.a twin.b; do
		mk "$w"
		status 0
	done
	lc clone --set '.user.home = "/home/{{.Hostname}}"' twin.a twin.c
	lc clone twin.c twin.d
	me=lima
	[ "$uid" = 0 ] || me=$(id -un)
	lc list --json
	status 0
	same "$(jq -r '[.name, .hostname, .dir, .sshConfigFile, .config.user.home] | join(" ")' "$out" | sed "s,$LIMA_HOME/,,g" | grep twin)" "\
twin.a lima-twin-a twin.a twin.a/ssh.config /home/$me.linux
twin.b lima-twin-b twin.b twin.b/ssh.config /home/$me.linux
twin.c lima-twin-c twin.c twin.c/ssh.config /home/lima-twin-c
twin.d lima-twin-d twin.d twin.d/ssh.config /home/lima-twin-d"
	lc info --yq '.shares | keys | .[]'
	same "$(tr '\n' ' ' <"$out")" 'foo twin.a twin.b twin.c twin.d '
	ok 'list --json: instances with the same text'

	# an instance that cannot be read is deleted when that is forced
	echo 'cpus: [' >"$LIMA_HOME/twin.d/lima.yaml"
	lc delete twin.d
	fatal 'failed to delete instance `twin.d`: expected status `Stopped`, got `` (its configuration has errors; maybe use `limactl delete -f`?)'
	lc delete -f twin.d
	status 0
	logged info "Deleted \`twin.d\` (\`$LIMA_HOME/twin.d\`)"
	ok 'delete of an instance that cannot be read'

	# two clones to one name
	"$LIMACTL" --tty=false clone twin.a both >"$T/c1" 2>&1 </dev/null &
	w=$!
	lc --tty=false clone twin.b both
	k=$rc
	wait "$w" || k=$((k + 1))
	same "$k" 1
	same "$(cat "$T/c1" "$err" | sed 's/^time="[^"]*" //')" 'level=fatal msg="instance `both` already exists"'
	ok 'two clones to one name: one is made, and the other says why not'
	lc delete foo both twin.a twin.b twin.c
	status 0

	# values are refused before anything is said or done
	for w in --dns=foo --dns=1.2.3.4,foo --cpus=x --memory=x --ssh-port=70000 --timeout=5; do
		lc start "$w" --name foo "$T/foo.yaml"
		fatalhas "invalid argument \"${w#*=}\" for \"${w%%=*}\" flag: "
		same "$(wc -l <"$err")" 1
	done
	lc disk create x --size 10X
	fatalhas "invalid suffix: 'x'"
	lc disk create x --size x
	fatal "invalid size: 'x'"
	ok 'a value that is none'

	# where a template goes
	lc template copy "$T/foo.yaml" /dev/stdout
	status 0
	outis "$tiny"
	holds test -c /dev/null
	lc template copy "$T/foo.yaml" /dev/null
	status 0
	holds test -c /dev/null
	ln -s foo2.yaml "$T/link.yaml"
	: >"$T/foo2.yaml"
	lc template copy "$T/foo.yaml" "$T/link.yaml"
	status 0
	holds test -h "$T/link.yaml"
	holds cmp "$T/foo.yaml" "$T/foo2.yaml"
	lc edit --tty=false --set .cpus=3 "$T/link.yaml"
	lc yq -i .cpus=4 "$T/link.yaml"
	status 0
	holds test -h "$T/link.yaml"
	filehas "$T/foo2.yaml" 'cpus: 4'
	lc template copy "$T/foo.yaml" "$T/none/x.yaml"
	fatal "create $T/none/x.yaml: no such file or directory"
	lc template copy "$T/foo.yaml" "$T"
	fatal "open $T: is a directory"
	ok 'files that are named are written: devices, and through links'

	lc yq -n -o xml .a=1
	status 1
	errhas "Error: unknown format 'xml'"
	lc yq -n -o auto .a=1
	outis 'a: 1'
	lc yq-restrictions
	status 0
	outhas env
	for w in zsh fish powershell; do
		lc completion "$w"
		outhas '__complete '
		lc completion "$w" --no-descriptions
		outhas '__completeNoDesc '
		outlacks '__complete '
	done
	lc completion
	status 0
	outhas 'bash|zsh|fish|powershell'
	lc completion csh
	fatalhas '`csh`'
	ok 'yq formats, yq-restrictions, completion'

	# log lines
	lc create "$T/none.yaml"
	fatalhas "none.yaml: no such file or directory"
	lc create "$T"
	fatalhas ': is a directory'
	ok 'system errors are in lower case'
	if have script; then
		e=$(printf '\033')
		run script -qec "'$LIMACTL' stop nope 2>&1" /dev/null
		outhas "${e}[31mFATA${e}[0m[0000] open"
		run script -qec "NO_COLOR=1 '$LIMACTL' stop nope 2>&1" /dev/null
		outhas 'FATA[0000] open'
		run script -qec "TERM=dumb '$LIMACTL' stop nope 2>&1" /dev/null
		outhas 'level=fatal msg="open'
		ok 'log lines on a terminal, NO_COLOR and TERM=dumb'
	else
		skip 'log lines on a terminal' 'no script(1)'
	fi
}
