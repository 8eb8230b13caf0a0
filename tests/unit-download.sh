# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# download: the cache, resuming, proxies, redirects; formats of images; prune

asked() { touch "$fakes/requests"; grep -c "^$1\$" "$fakes/requests" || :; }

test_download() {
	begin download
	buildfakes
	if ! have curl; then
		skip 'downloads' 'curl is not installed'
		finish
		return
	fi
	rm -f "$fakes/port" "$fakes/requests"
	"$fakes/httpd" >/dev/null 2>&1 &
	server=$!
	await 10 test -s "$fakes/port"
	url=http://127.0.0.1:$(cat "$fakes/port")
	www=$fakes/www
	cache=$XDG_CACHE_HOME/lima/download/by-url-sha256
	rm -rf "$XDG_CACHE_HOME/lima/download"
	head -c 300000 /dev/urandom >"$www/d.img"
	head -c 300000 /dev/urandom >"$HOME/new.img"
	digest=sha256:$(sha256sum "$www/d.img" | cut -d ' ' -f 1)
	dir() { printf '%s/%s' "$cache" "$(sha "$1")"; }
	get() { mk one "{images: [{location: \"$1\"${2:+, digest: \"$2\"}}], disk: 1M}"; }

	# without a digest the server is asked whether the cached file is still its
	get "$url/d.img"
	status 0
	lc delete one
	get "$url/d.img"
	status 0
	logged info "Using cache \`$(dir "$url/d.img")/data\`"
	same "$(asked 'd.img 0')/$(asked 'd.img HEAD')" 1/1
	lc delete one
	ok 'no digest, the same Last-Modified: the cache serves'
	cp "$HOME/new.img" "$www/d.img"
	echo 'Fri, 02 Jan 2026 00:00:00 GMT' | tr -d '\n' >"$www/d.img.time"
	get "$url/d.img"
	status 0
	errhas 'Re-downloading digest-less image: last-modified mismatch'
	holds cmp "$HOME/new.img" "$LIMA_HOME/one/basedisk"
	same "$(cat "$(dir "$url/d.img")/time")" 'Fri, 02 Jan 2026 00:00:00 GMT'
	lc delete one
	ok 'no digest, another Last-Modified: it is fetched again'
	: >"$www/d.img.time"
	get "$url/d.img"
	errhas 'Re-downloading'
	lc delete one
	get "$url/d.img"
	errhas 'Re-downloading'
	lc delete one
	ok 'no digest, no Last-Modified: it is fetched again'
	mv "$www/d.img" "$HOME/d.img"
	get "$url/d.img"
	status 0
	logged info 'Failed to retrieve last-modified for cached digest-less image; using cached image.'
	lc delete one
	ok 'no digest, a server that does not answer: the cache serves'
	cp "$HOME/d.img" "$www/d.img"
	old=sha256:$(sha256sum "$www/d.img" | cut -d ' ' -f 1)
	rm -rf "$(dir "$url/d.img")"
	get "$url/d.img" "$old"
	status 0
	lc delete one
	head -c 300000 /dev/urandom >"$www/d.img"
	get "$url/d.img"
	status 0
	lc delete one
	get "$url/d.img" "$old"
	status 1
	errhas "got"
	fails test -e "$LIMA_HOME/one"
	ok 'a digest of what the cache held before does not speak for what it holds now'
	rm -f "$www/d.img.time"
	mv "$HOME/d.img" "$www/d.img"
	digest=sha256:$(sha256sum "$www/d.img" | cut -d ' ' -f 1)
	get "$url/d.img" "$digest"
	status 0
	same "$(cat "$(dir "$url/d.img")/sha256.digest")" "$digest"
	lc delete one
	rm -f "$fakes/requests"
	get "$url/d.img" "$digest"
	same "$(asked 'd.img .*')" 0
	lc delete one
	get "$url/d.img" "sha256:$(sha x)"
	status 1
	errhas "expected digest \`sha256:$(sha x)\`, got \`$digest\`"
	same "$(asked 'd.img .*')" 0
	holds test -e "$(dir "$url/d.img")/data"
	gone one
	ok 'a digest that is known: nobody is asked, another one is an error'
	for a in sha384 sha512; do
		get "$url/d.img" "$a:$("${a}sum" "$www/d.img" | cut -d ' ' -f 1)"
		status 0
		holds test -f "$(dir "$url/d.img")/$a.digest"
		lc delete one
	done
	ok 'sha384 and sha512'

	# broken ones
	cp "$www/d.img" "$www/cut.img"
	get "$url/cut.img"
	status 1
	errhas 'the answer was cut'
	shape
	gone one
	holds filesize "$(dir "$url/cut.img")/data.part" 150000
	get "$url/cut.img"
	status 0
	holds cmp "$www/cut.img" "$LIMA_HOME/one/basedisk"
	same "$(asked 'cut.img 150000')" 1
	lc delete one
	ok 'a cut body: an error, and the next try goes on, with no digest too'
	rm -r "$(dir "$url/cut.img")"
	get "$url/cut.img"
	cp "$HOME/new.img" "$www/cut.img"
	head -c 1000 /dev/urandom | dd of="$www/cut.img" conv=notrunc 2>/dev/null
	echo 'Fri, 02 Jan 2026 00:00:00 GMT' | tr -d '\n' >"$www/cut.img.time"
	mv "$www/cut.img" "$www/d2.img"
	ln -s d2.img "$www/cut.img"
	rm -f "$fakes/requests"
	get "$url/cut.img"
	[ "$rc" = 1 ] || bad 'a part of another file was completed'
	same "$(asked 'cut.img 150000')/$(asked 'cut.img 0')" 1/1
	gone one
	ok 'a file that changed in between is fetched from its start'
	rm -f "$www/cut.img" "$www/cut.img.time"
	cp "$www/d.img" "$www/whole.img"
	mkdir -p "$(dir "$url/whole.img")"
	head -c 1000 "$www/d.img" >"$(dir "$url/whole.img")/data.part"
	get "$url/whole.img" "$digest"
	status 0
	holds cmp "$www/whole.img" "$LIMA_HOME/one/basedisk"
	lc delete one
	ok 'a server that cannot go on: from the start'
	rm -r "$(dir "$url/d.img")"
	mkdir -p "$(dir "$url/d.img")"
	cp "$www/d.img" "$(dir "$url/d.img")/data.part"
	get "$url/d.img" "$digest"
	status 0
	lc delete one
	ok 'a part that is whole already'
	mkdir -p "$(dir "$url/none.img")"
	echo part >"$(dir "$url/none.img")/data.part"
	get "$url/none.img" "$digest"
	status 1
	errhas 'the server refuses: 404'
	holds test -e "$(dir "$url/none.img")/data.part"
	ok 'a failure keeps what is there already'

	get "$url/redir/redir/d.img" "$digest"
	status 0
	same "$(cat "$(dir "$url/redir/redir/d.img")/time")" 'Thu, 01 Jan 2026 00:00:00 GMT'
	lc delete one
	get "$url/loop.img"
	status 1
	errhas 'too many redirects'
	gone one
	ok 'redirects, and too many'

	# what is no image, and is not kept as one
	head -c 2000 /dev/urandom >"$www/page.img"
	get "$url/page.img"
	status 1
	errhas "failed to download \`$url/page.img\`: the server sent a web page"
	fails test -e "$(dir "$url/page.img")/data"
	get "$url/page.img" "sha256:$(sha256sum "$www/page.img" | cut -d ' ' -f 1)"
	status 0
	lc delete one
	: >"$www/empty.img"
	get "$url/empty.img"
	status 1
	errhas '0 bytes are no disk image'
	ok 'a web page in the place of an image, and nothing'
	gzip -c "$www/d.img" >"$www/x.gz"
	head -c 5000 "$www/x.gz" >"$www/spoilt.gz"
	get "$url/spoilt.gz"
	status 1
	errhas 'data: gzip: stdin: unexpected end of file'
	shape
	cp "$www/x.gz" "$www/spoilt.gz"
	get "$url/spoilt.gz"
	status 0
	holds cmp "$www/d.img" "$LIMA_HOME/one/basedisk"
	lc delete one
	ok 'what cannot be decompressed is fetched again'

	# two at once
	: >"$www/d.img.time"
	rm -rf "$(dir "$url/d.img")"
	mkdir -p "$(dir "$url/d.img")"
	exec 7<"$(dir "$url/d.img")"
	flock 7
	rm -f "$fakes/requests"
	printf '{images: [{location: "%s/d.img"}], disk: 1M}' "$url" >"$T/in"
	background create --name=one "$T/in" 7<&-
	holds await 10 grep -q 'Waiting for another limactl to finish with d.img' "$err"
	cp "$www/d.img" "$(dir "$url/d.img")/data"
	exec 7<&-
	collect 20
	status 0
	logged info "Using cache \`$(dir "$url/d.img")/data\`"
	same "$(asked 'd.img .*')" 0
	lc delete one
	rm "$www/d.img.time"
	ok 'a download that another one waited for serves both'

	# a proxy, named by either case
	for v in http_proxy HTTP_PROXY; do
		rm -rf "$cache"
		printf '{images: [{location: "http://nowhere.invalid/d.img"}], disk: 1M}' >"$T/in"
		input=$T/in
		run env "$v=$url" "$LIMACTL" create --name=one -
		status 0
		holds cmp "$www/d.img" "$LIMA_HOME/one/basedisk"
		lc delete one
	done
	ok 'a proxy, named in lower or upper case'

	if have wget; then
		nopath curl
		rm -rf "$cache"
		get "$url/d.img" "$digest"
		status 0
		same "$(cat "$(dir "$url/d.img")/time")" 'Thu, 01 Jan 2026 00:00:00 GMT'
		same "$(cat "$(dir "$url/d.img")/type")" application/octet-stream
		lc delete one
		get "$url/none.img"
		status 1
		errhas 'the server refuses: 404'
		rm -r "$(dir "$url/d.img")"
		mkdir -p "$(dir "$url/d.img")"
		head -c 1000 "$www/d.img" >"$(dir "$url/d.img")/data.part"
		rm -f "$fakes/requests"
		get "$url/d.img" "$digest"
		status 0
		same "$(asked 'd.img 1000')" 1
		lc delete one
		rm -f "$(dir "$url/d.img")/sha256.digest"
		get "$url/d.img"
		status 0
		errlacks 'Re-downloading'
		lc delete one
		PATH=$realpath
		ok 'all that by wget'
	else
		skip 'all that by wget' 'wget is not installed'
	fi

	# kernel and initrd by http; a failing kernel takes its image along
	echo kernel >"$www/kernel"
	gzip -c <"$www/kernel" >"$www/kernel.gz"
	gzip -c <"$www/kernel" >"$www/initrd.gz"
	mk one "{images: [{location: $url/whole.img, kernel: {location: $url/none}}, {location: $url/d.img,
		kernel: {location: $url/kernel.gz, cmdline: a=b c}, initrd: {location: $url/initrd.gz}}], disk: 1M}"
	status 0
	holds cmp "$www/d.img" "$LIMA_HOME/one/basedisk"
	holds cmp "$www/kernel" "$LIMA_HOME/one/kernel"
	holds cmp "$www/initrd.gz" "$LIMA_HOME/one/initrd"
	same "$(cat "$LIMA_HOME/one/kernel.cmdline")" 'a=b c'
	lc delete one
	ok 'a kernel that cannot be had: the next entry, and nothing of this one'

	# prune
	mk one "{images: [{location: $url/d.img, kernel: {location: $url/kernel.gz}}], disk: 1M}"
	get2=$(dir "$url/whole.img")
	echo part >"$(dir "$url/d.img")/data.part"
	mkdir -p "$LIMA_HOME/_templates" "$(dir "$url/tmpl.img")"
	printf 'images:\n- location: "%s/tmpl.img"\n' "$url" >"$T/below.yaml"
	printf 'base: [gone.yaml, {url: "%s/middle.yaml"}]\n' "$T" >"$LIMA_HOME/_templates/t.yaml"
	printf 'base: "%s/below.yaml"\n' "$T" >"$T/middle.yaml"
	holds test -d "$get2"
	lc prune --keep-referred
	status 0
	noout
	logged info "Pruning \`$XDG_CACHE_HOME/lima\`"
	for f in d.img kernel.gz tmpl.img; do holds test -d "$(dir "$url/$f")"; done
	fails test -e "$(dir "$url/d.img")/data.part"
	fails test -e "$get2"
	holds test -s "$(dir "$url/d.img")/data"
	ok 'prune --keep-referred keeps what instances and templates name'
	exec 7<"$(dir "$url/d.img")"
	flock 7
	lc prune
	exec 7<&-
	status 0
	holds test -d "$(dir "$url/d.img")"
	fails test -e "$(dir "$url/kernel.gz")"
	ok 'prune leaves alone what another limactl works on'
	lc prune
	status 0
	fails test -e "$XDG_CACHE_HOME/lima"
	lc prune
	status 0
	lc start --help
	status 0
	run qemu-img check -q "$LIMA_HOME/one/disk"
	status 0
	lc delete one
	rm -r "$LIMA_HOME/_templates"
	ok 'prune removes the cache and breaks no instance'
	kill "$server"
	wait "$server" 2>/dev/null || :

	# formats
	for f in vmdk vhdx vdi qed parallels vpc:-o:subformat=dynamic vmdk:-o:subformat=monolithicFlat; do
		IFS=:
		# shellcheck disable=SC2086
		set -- $f
		unset IFS
		fmt=$1
		shift
		qemu-img create -q -f "$fmt" "$@" "$HOME/x.img" 1M 2>/dev/null || { bad "qemu-img makes no $fmt"; continue; }
		mk one "{images: [{location: $HOME/x.img}], disk: 2M}"
		status 1
		errhas "is a $fmt image, neither raw nor qcow2"
		gone one
	done
	ok 'other formats are refused, and how to convert them is said'
	qcow() {	# qcow OFFSET BYTES WHAT
		qemu-img create -q -f qcow2 "$HOME/q.img" 1M
		printf %b "$2" | dd of="$HOME/q.img" bs=1 seek="$1" conv=notrunc 2>/dev/null
		mk one "{images: [{location: $HOME/q.img}], disk: 2M}"
		status 1
		errhas "$3"
		gone one
	}
	qcow 4 '\0\0\0\011' 'unknown qcow2 version'
	qcow 15 '\1' 'backing file'
	qcow 19 '\1' 'backing file'
	qcow 79 '\4' 'external data file'
	qcow 79 '\2' 'corrupt'
	qcow 35 '\1' 'encrypted'
	qcow 23 '\7' 'cluster size'
	qcow 24 '\177' 'absurd size'
	qcow 24 '\200' 'absurd size'
	ok 'qcow2 headers that are not to be trusted are refused'

	# ISO 9660: booted from, with an empty disk beside it
	head -c 40000 /dev/zero >"$HOME/x.iso"
	printf CD001 | dd of="$HOME/x.iso" bs=1 seek=32769 conv=notrunc 2>/dev/null
	mk one "{images: [{location: $HOME/x.iso}], disk: 2M}"
	status 0
	holds cmp "$HOME/x.iso" "$LIMA_HOME/one/iso"
	fails test -e "$LIMA_HOME/one/basedisk"
	run qemu-img info "$LIMA_HOME/one/disk"
	outre '\(2097152 bytes\)'
	outlacks backing
	PATH=$fakes:$PATH
	plan "$goodboot"
	lc start --tty=false one
	status 0
	argvhas "file=$LIMA_HOME/one/iso,if=none,format=raw,media=cdrom,readonly=on,id=iso"
	argvhas 'drive=iso,bootindex=0'
	lc stop one
	rm "$LIMA_HOME/one/disk"
	lc start --tty=false one
	status 0
	lc stop one
	PATH=$realpath
	lc delete one
	ok 'an ISO image: CD first, an empty disk, made anew when it is gone'
	finish
}
