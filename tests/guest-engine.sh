# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# containerd: of an archive, whose tools are stand-ins here, and of packages

# engineimage FILE: an image bb of busybox for `ctr images import`
engineimage() {
	mkdir "$T/bb"
	# shellcheck disable=SC2046  # a word each
	cp -L --parents "$b" $(libraries "$b") "$T/bb"
	tar -C "$T/bb" -cf "$T/layer.tar" .
	printf '{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
		"$(sha256sum <"$T/layer.tar" | cut -d' ' -f1)" >"$T/config.json"
	echo '[{"Config":"config.json","RepoTags":["docker.io/library/bb:1"],"Layers":["layer.tar"]}]' >"$T/manifest.json"
	tar -C "$T" -cf "$1" layer.tar config.json manifest.json
	rm -r "$T/bb" "$T/layer.tar" "$T/config.json" "$T/manifest.json"
}

test_engine() {
	beginguest engine eng
	mkdir -p "$T/ar/bin"
	printf '#!/bin/sh\necho stand-in\n' >"$T/ar/bin/nerdctl"
	cat >"$T/ar/bin/containerd-rootless-setuptool.sh" <<-'END'
		#!/bin/sh
		echo "$1" >>~/setup
		[ "$1" = install ] || exit 0
		mkdir -p ~/.config/systemd/user
		printf '[Service]\nExecStartPre=mkdir -p %%t/containerd\nExecStart=ssh-agent -D -a %%t/containerd/containerd.sock\n[Install]\nWantedBy=default.target\n' \
			>~/.config/systemd/user/containerd.service
	END
	chmod 755 "$T"/ar/bin/*
	tar -C "$T/ar" -czf "$T/ar.tgz" .
	cat >"$HOME/eng.yaml" <<-END
		images: [{location: "$image"}]
		cpus: 2
		memory: 1GiB
		disk: 10GiB
		mounts: []
		containerd: {archives: [{location: "$T/ar.tgz", arch: $host}]}
	END
	limit=300
	lc start --tty=false --name "$vm" "$HOME/eng.yaml"
	status 0
	errlacks 'no effect'
	errhas 'The guest is unpacking containerd and nerdctl'
	errhas 'The guest is using containerd of the archive of nerdctl'
	guestsays stand-in nerdctl
	guestsays "install
install-buildkit-containerd" cat setup
	ok 'containerd is on by default: of the archive, set up by its own tool'
	limit=120
	lc stop "$vm"
	status 0
	limit=300
	lc start --tty=false "$vm"
	status 0
	errlacks unpacking
	guestsays 2 sh -c 'wc -l <setup; rm .config/systemd/user/containerd.service; sudo rm /usr/local/bin/containerd-*; sync'
	ok 'the next start unpacks nothing'
	limit=120
	lc stop "$vm"
	status 0
	rm "$dir/nerdctl-full.tgz"
	lc edit --set .containerd.user=true "$vm"
	status 0
	limit=300
	lc start --tty=false "$vm"
	status 0
	errhas "The guest is using containerd of the distribution's packages"
	errlacks level=error
	guestsays active systemctl --user is-active containerd
	sh_ ctr version
	status 0
	outhas Server:
	if b=$(command -v busybox); then
		engineimage "$T/bb.tar"
		input=$T/bb.tar limit=120
		lc shell "$vm" ctr images import -
		status 0
		limit=120
		lc shell "$vm" ctr run --rm docker.io/library/bb:1 one "$b" echo contained
		outis contained
		rm "$T/bb.tar"
	fi
	ok 'containerd of the packages, without root: ctr imports and runs'
	limit=120
	lc stop "$vm"
	status 0
	lc edit --set "del(.containerd.user)" "$vm"
	status 0
	limit=300
	lc start --tty=false "$vm"
	status 0
	errhas "The guest is using containerd of the distribution's packages, from its first use on"
	sh_ systemctl --user is-active containerd
	outis inactive
	limit=120
	sh_ ctr version
	status 0
	outhas Server:
	guestsays active systemctl --user is-active containerd
	ok "one that nobody asked for begins with the first ctr"
	ln -sf "$LIMACTL" "$T/nerdctl.lima"
	run env "LIMA_INSTANCE=$vm" "$T/nerdctl.lima" ps
	status 127
	noout
	same "$(grep -c . "$err")" 1
	errhas 'nerdctl: not in this guest, whose containerd is of its packages: use ctr, or podman'
	rm "$T/nerdctl.lima"
	ok 'nerdctl.lima says what there is instead'
	limit=120
	lc delete -f "$vm"
	status 0
	rm -r "$T/ar" "$T/ar.tgz"
	finish
}
