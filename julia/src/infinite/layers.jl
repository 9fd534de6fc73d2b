# How each kind of layer acts on covariances.

"the kernels after a layer"
propagated(layer, ::Batches, ::Draws) =
    throw(ArgumentError("a $(layer isa Function ? nameof(layer) : nameof(typeof(layer))) has no kernel at infinite width here"))
function propagated(chain::Chain, k::Batches, s::Draws)
    return foldl(chain.layers; init=k) do k, layer
        checkpoint()
        propagated(layer, k, s)
    end
end
propagated(::Dropout, k::Batches, ::Draws) = k
propagated(::typeof(identity), k::Batches, ::Draws) = k
propagated(a::Activation, k::Batches, s::Draws) = activated(a.f, k)
propagated(f::Function, k::Batches, ::Draws) =
    f in values(ACTIVATIONS) ? activated(f, k) : throw(ArgumentError("$(nameof(f)) has no kernel at infinite width here"))

function propagated(d::Dense, k::Batches, s::Draws)
    isempty(k.across.space) || throw(ArgumentError("a Dense layer on samples with positions; put Flux.flatten before it"))
    return activated(d.σ, each(c -> affine(c, [ones(1, 1)], (), size(d.weight, 2), d.bias !== false, s), k))
end

function propagated(c::Convolution, k::Batches, s::Draws)
    groups(c) == 1 || throw(ArgumentError("a convolution with $(groups(c)) groups has no kernel here; allowed: 1"))
    kernel = size(c.weight)[1:(end - 2)]
    seen, space = window_maps(k.across.space, kernel, c.stride, c.pad, c.dilation)
    fan_in = prod(size(c.weight)[1:(end - 1)])
    return activated(c.σ, each(x -> affine(x, seen, space, fan_in, c.bias !== false, s), k))
end

propagated(::typeof(Flux.flatten), k::Batches, ::Draws) = each(k) do c
    # The weights after it are independent from position to position: only pairs of one position with itself contribute.
    own(a) = reshape([sum(a[p, p, i] for p in axes(a, 1)) / size(a, 1) for i in axes(a, 3)], 1, 1, :)
    return Covariance(own(c.nngp), own(c.ntk), ())
end

propagated(::GlobalMeanPool, k::Batches, ::Draws) = each(k) do c
    mean = fill(1 / prod(c.space), 1, prod(c.space))
    return Covariance(seen_through([mean], c.nngp), seen_through([mean], c.ntk), map(_ -> 1, c.space))
end

function propagated(p::MeanPool, k::Batches, ::Draws)
    seen, space = window_maps(k.across.space, p.k, p.stride, p.pad, map(_ -> 1, p.k))
    mean = sum(seen) ./ length(seen)
    return each(c -> Covariance(seen_through([mean], c.nngp), seen_through([mean], c.ntk), space), k)
end

function propagated(l::SampleNorm, k::Batches, ::Draws)
    l.weight === nothing && length(l.size) == 1 && isempty(k.across.space) ||
        throw(ArgumentError("layer norm has a kernel here for vectors and without parameters alone"))
    # Over infinitely many features, a sample's mean is 0 and its mean square is its variance.
    return rescaled(k, v -> 1 ./ sqrt.(v .+ l.eps))
end

propagated(s::SkipConnection, k::Batches, draws::Draws) = joined(s.connection, s.layers, k, k, draws)
function propagated(p::Parallel, k::Batches, draws::Draws)
    length(p.layers) == 2 || throw(ArgumentError("a Parallel with $(length(p.layers)) branches has no kernel here; allowed: 2"))
    return joined(p.connection, p.layers[1], k, propagated(p.layers[2], k, draws), draws)
end

function joined(connection, branch, k::Batches, beside::Batches, draws::Draws)
    connection === (+) || throw(ArgumentError("a connection by $connection has no kernel here; allowed: +"))
    ends_in_weights(branch) || throw(ArgumentError("the branch of a block must end in weights, without an activation"))
    main = propagated(branch, k, draws)
    add(a, b) = Covariance(a.nngp .+ b.nngp, a.ntk .+ b.ntk, a.space)
    return Batches(add(main.first, beside.first), add(main.second, beside.second), add(main.across, beside.across), k.same)
end

ends_in_weights(chain::Chain) = ends_in_weights(last(chain.layers))
ends_in_weights(layer::Union{Dense,Convolution}) = layer.σ === identity
ends_in_weights(layer) = false

"""
    affine(k, seen, space, fan_in, has_bias, draws)

The kernels after weights that see, at each offset of their window, the positions that `seen` maps to it.
"""
function affine(k::Covariance, seen, space, fan_in, has_bias, s::Draws)
    w2, b2 = s.w^2, has_bias ? s.b^2 : 0.0
    before = seen_through(seen, k.nngp) ./ length(seen)
    nngp = w2 .* before .+ b2
    own = s.standard ? fan_in .* before .+ has_bias : nngp
    return Covariance(nngp, own .+ w2 .* seen_through(seen, k.ntk) ./ length(seen), space)
end

"sum of A K A' over the maps A, for every pair of samples"
function seen_through(maps, k::Array{Float64,3})
    result = zeros(size(first(maps), 1), size(first(maps), 1), size(k, 3))
    for i in axes(k, 3), A in maps
        result[:, :, i] .+= A * k[:, :, i] * A'
    end
    return result
end

"for each offset in a window, the matrix from positions to windows that has a one where the window sees the position there"
function window_maps(space, kernel, stride, pad, dilation)
    before, after = length(pad) == length(space) ? (pad, pad) : (pad[1:2:end], pad[2:2:end])
    counts = @. (space + before + after - dilation * (kernel - 1) - 1) ÷ stride + 1
    positions, windows = LinearIndices(space), CartesianIndices(counts)
    maps = map(vec(collect(CartesianIndices(kernel)))) do offset
        A = zeros(length(windows), length(positions))
        for (o, window) in enumerate(windows)
            at = (Tuple(window) .- 1) .* stride .- before .+ (Tuple(offset) .- 1) .* dilation .+ 1
            all(1 .<= at .<= space) && (A[o, positions[at...]] = 1)
        end
        A
    end
    return maps, counts
end
