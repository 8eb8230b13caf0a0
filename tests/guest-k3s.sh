# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# The templates k3s and k8s with a stand-in for what get.k3s.io and pkgs.k8s.io have:
# that it is fetched and run, the kubeconfig on the host, its server behind a
# forwarded port, kubectl.lima

# k3sserver DIR: serve the files of DIR; its port goes to DIR.port
k3sserver() {
	cat >"$T/http.pl" <<-'END'
		use IO::Socket::INET;
		my $s = IO::Socket::INET->new(LocalAddr => "127.0.0.1", Listen => 5) or die;
		open(my $p, ">", "$ARGV[0].port.new") or die;
		print $p $s->sockport;
		close $p;
		rename "$ARGV[0].port.new", "$ARGV[0].port";
		while (my $c = $s->accept) {
			my ($path) = <$c> =~ m{^GET /([\w.-]+) } or next;
			while (<$c> =~ /\S/) {}
			if (open(my $f, "<", "$ARGV[0]/$path")) {
				my $b = join("", <$f>);
				print $c "HTTP/1.0 200 OK\r\nContent-Length: ", length($b), "\r\n\r\n", $b;
			} else {
				print $c "HTTP/1.0 404 Not Found\r\n\r\n";
			}
		}
	END
	timeout 600 perl "$T/http.pl" "$1" &
	server=$!
	await 5 test -s "$1.port"
}
k3sapi() { [ "$(curl -s -m 5 http://127.0.0.1:6443/)" = 'from the API' ]; }

# k8spackages DIR: a signed repository of stand-ins for kubeadm, kubelet and kubectl in it
k8spackages() {
	p=$T/pkg g=$T/gpg
	mkdir -p "$g" "$p/DEBIAN" "$p/usr/bin"
	chmod 700 "$g"
	for f in kubeadm kubelet kubectl; do
		printf 'Package: %s\nVersion: 1\nArchitecture: all\nMaintainer: none <none@example.org>\nDescription: stand-in\n' $f >"$p/DEBIAN/control"
		printf '#!/bin/sh\necho "$(id -un) $*"\necho "%s $*" >>/var/tmp/said\n' $f >"$p/usr/bin/$f"
		[ $f != kubeadm ] || printf 'mkdir -p /etc/kubernetes && echo "server: https://10.0.2.15:6443" >/etc/kubernetes/admin.conf\n' >>"$p/usr/bin/$f"
		chmod 755 "$p/usr/bin/$f"
		dpkg-deb -b --root-owner-group "$p" "$1/$f.deb" >/dev/null || return
		rm "$p/usr/bin/$f"
		sed -e "\$aFilename: $f.deb\nSize: $(stat -c %s "$1/$f.deb")\nSHA256: $(sha256sum "$1/$f.deb" | cut -d' ' -f1)\n" "$p/DEBIAN/control"
	done >"$1/Packages"
	printf 'Suite: test\nSHA256:\n %s %s Packages\n' "$(sha256sum "$1/Packages" | cut -d' ' -f1)" "$(stat -c %s "$1/Packages")" >"$T/Release"
	gpg -q --homedir "$g" --batch --passphrase '' --quick-gen-key none@example.org rsa2048 sign never &&
		gpg -q --homedir "$g" --armor --export >"$1/Release.key" &&
		gpg -q --homedir "$g" --batch --clearsign -o "$1/InRelease" "$T/Release"
	rc=$?
	gpgconf --homedir "$g" --kill gpg-agent
	rm -r "$p" "$g" "$T/Release"
	return $rc
}

# k3stok8s: the VM is as if new, of template:k8s
k3stok8s() {
	for p in dpkg-deb gpg; do
		have $p || { skip 'template:k8s' "$p is not installed"; return; }
	done
	k8spackages "$T/www" || bad 'no repository of stand-ins'
	echo 'of pods' >"$T/www/net.yml"
	sh_ sudo sh -c 'systemctl disable -q --now k3s.service; rm -r /usr/local/bin/k3s /usr/local/bin/kubectl /etc/rancher; sync'
	limit=60
	lc stop "$vm"
	status 0
	u=http://host.lima.internal:$(cat "$T/www.port")/
	lc edit --tty=false --set ".provision = [{\"script\": $(jsonscript k8s 0)}, {\"script\": $(jsonscript k8s 1)}] |
		.copyToHost[0].guest = \"/root/.kube/config.localhost\" | .probes[0].script = \"#!/bin/sh\nsudo test -f /root/.kube/config.localhost\" |
		.param = {\"url\": \"\", \"token\": \"\", \"version\": \"v1\", \"packages\": \"$u\", \"network\": \"${u}net.yml\"} | del(.networks)" "$vm"
	status 0
	limit=300 t=$(date +%s)
	lc start --tty=false "$vm"
	status 0
	printf '# start: %d s\n' $(($(date +%s) - t))
	errlacks 'A provision script failed'
	guestsays 'kubeadm init --pod-network-cidr=10.244.0.0/16 --apiserver-cert-extra-sans=127.0.0.1,lima-k8s.internal
kubectl apply -f /tmp/network.yml
kubectl taint nodes --all node-role.kubernetes.io/control-plane-' sh -c 'grep -v auth /var/tmp/said | tail -n 3'
	guestsays 'of pods' cat /tmp/network.yml
	same "$(cat "$kubeconfig" 2>&1)" 'server: https://127.0.0.1:6443'
	ok 'template:k8s: packages of a signed repository, kubeadm, the network; the kubeconfig with an address of the host'
}

test_k3s() {
	begin k3s
	XDG_CACHE_HOME=$realcache
	export XDG_CACHE_HOME
	for p in perl curl qemu-img mmdebstrap; do
		have "$p" || { skip k3s "$p is not installed"; finish; return; }
	done
	vm=k3s
	dir=$LIMA_HOME/$vm
	kubeconfig=$dir/copied-from-guest/kubeconfig.yaml
	mkdir "$T/www"
	cat >"$T/www/install" <<-'END'
		#!/bin/sh
		set -eu
		echo "$*,${K3S_URL-},${K3S_TOKEN-}" >>/var/tmp/installed
		printf '#!/bin/sh\necho "$(id -un) $*"\n' >/usr/local/bin/k3s
		chmod 755 /usr/local/bin/k3s
		ln -s k3s /usr/local/bin/kubectl
		mkdir -p /etc/rancher/k3s
		echo 'server: https://127.0.0.1:6443' >/etc/rancher/k3s/k3s.yaml
		printf '%s\n' 'use IO::Socket::INET;' \
			'my $s = IO::Socket::INET->new(LocalPort => 6443, Listen => 5, ReuseAddr => 1) or die;' \
			'while (my $c = $s->accept) { while (<$c> =~ /\S/) {} print $c "HTTP/1.0 200 OK\r\n\r\nfrom the API"; }' >/usr/local/bin/api.pl
		printf '[Service]\nExecStart=perl /usr/local/bin/api.pl\n[Install]\nWantedBy=multi-user.target\n' >/etc/systemd/system/k3s.service
		systemctl enable -q --now k3s.service
	END
	holds k3sserver "$T/www"
	limit=600
	lc create --tty=false --cpus 2 --memory 1 --name $vm \
		--set ".param.install=\"http://host.lima.internal:$(cat "$T/www.port")/install\"" template:k3s
	status 0
	limit=120
	lc start --tty=false $vm
	status 0
	errhas 'The optional requirement 1 of 1 is satisfied'
	errhas "export KUBECONFIG=\"$kubeconfig\""
	if [ "$rc" != 0 ]; then
		ok 'template:k3s starts'
		kill "$server"
		lc delete -f $vm
		finish
		return
	fi
	guestsays "--write-kubeconfig-mode 644 --tls-san lima-k3s.internal,," cat /var/tmp/installed
	same "$(cat "$kubeconfig" 2>&1)" 'server: https://127.0.0.1:6443'
	ok 'the script is fetched and run, the kubeconfig copied'
	if curl -s -m 2 http://127.0.0.1:6443/ >/dev/null && ! k3sapi; then
		skip 'its server, on the host' 'something else has the port 6443'
	else
		holds await 20 k3sapi
		ok 'its server, on the host'
	fi
	ln -sf "$LIMACTL" "$T/kubectl.lima"
	run env KUBECTL=/nowhere "$T/kubectl.lima" get nodes -o wide
	status 0
	outis 'root get nodes -o wide'
	rm "$T/kubectl.lima"
	ok 'kubectl.lima'
	limit=60
	lc stop $vm
	status 0
	fails test -e "$kubeconfig"
	limit=120
	lc start --tty=false $vm
	status 0
	guestsays 1 sh -c 'wc -l </var/tmp/installed'
	holds test -s "$kubeconfig"
	ok 'a stop takes the kubeconfig away, the next start installs nothing'

	# one that joins another: the VM is as if new, with other params
	sh_ sudo sh -c 'rm /usr/local/bin/k3s /usr/local/bin/kubectl /var/tmp/installed /etc/rancher/k3s/k3s.yaml; sync'
	limit=60
	lc stop $vm
	lc edit --tty=false --set '.param.url="https://lima-one.internal:6443" | .param.token="a \"b" | .networks=[{"lima": "user-v2"}]' $vm
	status 0
	limit=120
	lc start --tty=false $vm
	status 0
	guestsays '--node-ip 192.168.104.x --flannel-iface lima0,https://lima-one.internal:6443,a "b' \
		sed 's/192\.168\.104\.[0-9]*/192.168.104.x/' /var/tmp/installed
	ok 'one that joins another has its address and token, and an address of its own'
	k3stok8s
	kill "$server"
	wait "$server" 2>/dev/null || :
	limit=60
	lc delete -f $vm
	status 0
	rm -r "$T/www" "$T/www.port" "$T/http.pl"
	finish
}
