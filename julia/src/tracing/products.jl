# Products of matrices, convolutions, pools, tables, changes of resolution: what Flux's layers ask of NNlib.

Base.:*(w::Traced{T,2}, x::Traced{S,2}) where {T,S} = matrix_product(w, x)
Base.:*(w::Traced{T,2}, x::Traced{S,1}) where {T,S} = matrix_product(w, x)
Base.:*(w::Matrix{T}, x::TracedVecOrMat) where {T<:Real} = matrix_product(lift(x.trace, w), x)
Base.:*(w::Traced{T,2}, x::VecOrMat{<:Real}) where {T} = matrix_product(w, lift(w.trace, x))

function matrix_product(w::Traced, x::Traced)
    size(w, 2) == size(x, 1) || throw(DimensionMismatch("a product of arrays of sizes $(size(w)) and $(size(x))"))
    dims = (size(w, 1), size(x)[2:end]...)
    w, x = as_numbers(w), as_numbers(x)
    w.batched && return multiply_batches(w, x, dims)
    # The source's linear map is x W', with W as (out, in): (in, out) here.
    return emit(x.trace, "linear", (x, permutedims(w, (2, 1))), eltype(x), dims, x.batched || w.batched)
end

"products of the first two axes; those behind them are the same, or 1"
function multiply_batches(x::Traced, y::Traced, dims::Dims)
    return emit(x.trace, "matmul", (y, x), eltype(x), dims, x.batched || y.batched)
end

function NNlib.batched_mul(x::Traced{T,3}, y::Traced{S,3}) where {T,S}
    (size(x, 2) == size(y, 1) && (size(x, 3) == size(y, 3) || 1 in (size(x, 3), size(y, 3)))) ||
        throw(DimensionMismatch("batched_mul of arrays of sizes $(size(x)) and $(size(y))"))
    return multiply_batches(as_numbers(x), as_numbers(y), (size(x, 1), size(y, 2), max(size(x, 3), size(y, 3))))
end
function NNlib.batched_mul(x::Traced{T,N}, y::Traced{S,N}) where {T,S,N}
    behind = Base.Broadcast.broadcast_shape(size(x)[3:end], size(y)[3:end])
    return multiply_batches(as_numbers(x), as_numbers(y), (size(x, 1), size(y, 2), behind...))
end
NNlib.batched_mul(x::Array, y::Traced) = NNlib.batched_mul(lift(y.trace, x), y)
NNlib.batched_mul(x::Traced, y::Array) = NNlib.batched_mul(x, lift(x.trace, y))
NNlib.batched_transpose(x::Traced) = permutedims(x, (2, 1, 3:ndims(x)...))
NNlib.batched_adjoint(x::Traced) = NNlib.batched_transpose(x)
NNlib.batched_vec(x::Traced{T,3}, y::Traced{S,2}) where {T,S} = dropdims(NNlib.batched_mul(x, reshape(y, size(y, 1), 1, :)); dims=2)

NNlib.bias_act!(σ::Function, x::Traced, bias::Bool) = σ.(x)
NNlib.bias_act!(::typeof(identity), x::Traced, bias::Bool) = x
NNlib.bias_act!(σ::Function, x::Traced, bias::AbstractArray) = σ.(with_bias_of(x, bias))

"a linear map or a convolution with its bias, in one node"
function with_bias_of(x::Traced, bias)
    own = bias isa Traced ? get(x.trace.same, bias.name, bias) : bias
    position = findlast(node -> node["name"] == x.name, x.trace.nodes)
    position === nothing && return x .+ bias
    node = x.trace.nodes[position]
    channels = node["op"] == "linear" ? 1 : node["op"] in ("conv", "conv_transpose") ? ndims(x) - 1 : 0
    fits = channels > 0 && own isa Traced{<:AbstractFloat,1} && length(node["inputs"]) == 2 && length(bias) == size(x, channels)
    fits || return x .+ bias
    name = "v$(length(x.trace.nodes) + 1)"
    push!(x.trace.nodes, merge(node, Dict("name" => name, "inputs" => [node["inputs"]; own.name])))
    return Traced{eltype(x),ndims(x)}(x.trace, name, size(x), x.batched)
end

# Convolutions: the source's do not flip their kernels.

"the weight with reversed kernels, which is known again where it is reversed once more"
function turned_weight(w::Traced)
    haskey(w.trace.same, w.name) && return w.trace.same[w.name]
    y = foldl((y, k) -> along(y, k, size(y, k):-1:1), 1:(ndims(w) - 2); init=w)
    y === w || (w.trace.same[y.name] = w)
    return y
end

"both sides of the padding of each axis"
sides(dims, N) = [(NNlib.padding(dims)[2k - 1], NNlib.padding(dims)[2k]) for k in 1:N]

"an array with more along its first axes, and how much padding is left to do for who can have the same on both sides"
function with_padding(x::Traced, ends, value::Real, most=map(_ -> typemax(Int), ends))
    all(((p, q), k)::Tuple -> p == q <= k, zip(ends, most)) && return x, Int[first(pair) for pair in ends]
    pads = [zeros(Int, 2) for _ in 1:ndims(x)]
    foreach(k -> pads[ndims(x) - k + 1] = collect(Int, ends[k]), eachindex(ends))
    dims = ntuple(k -> size(x, k) + (k <= length(ends) ? sum(ends[k]) : 0), ndims(x))
    return emit("pad", x, dims; pads, mode="constant", value=number(value)), zeros(Int, length(ends))
end

function NNlib.conv(x::Traced, w::Traced, dims::NNlib.DenseConvDims)
    N = ndims(x) - 2
    padded, padding = with_padding(as_numbers(x), sides(dims, N), 0)
    weight = NNlib.flipkernel(dims) ? w : turned_weight(w)
    out = (NNlib.output_size(dims)..., size(w, N + 2), size(x, N + 2))
    return emit(x.trace, "conv", (padded, weight), eltype(padded), out, x.batched; stride=reversed(NNlib.stride(dims)),
        padding=reverse(padding), dilation=reversed(NNlib.dilation(dims)), groups=NNlib.groupcount(dims))
end
NNlib.conv(x::Traced, w::Array, dims::NNlib.DenseConvDims) = NNlib.conv(x, lift(x.trace, w), dims)

reversed(values) = collect(Int, reverse(values))

function NNlib.∇conv_data(x::Traced, w::Traced, dims::NNlib.DenseConvDims)
    N = ndims(x) - 2
    ends, space = sides(dims, N), NNlib.input_size(dims)
    whole = ntuple(k -> (size(x, k) - 1) * NNlib.stride(dims)[k] + NNlib.dilation(dims)[k] * (size(w, k) - 1) + 1, N)
    weight = NNlib.flipkernel(dims) ? w : turned_weight(w)
    channels, stride = size(w, N + 1) * NNlib.groupcount(dims), reversed(NNlib.stride(dims))
    y = emit(x.trace, "conv_transpose", (as_numbers(x), weight), number_of(x.trace), (whole..., channels, size(x, N + 2)), x.batched;
        stride, padding=zeros(Int, N), dilation=reversed(NNlib.dilation(dims)), output_padding=zeros(Int, N), groups=NNlib.groupcount(dims))
    # What is padding there is cut off here, and zeros stand where nothing comes from.
    pads = [zeros(Int, 2) for _ in 1:ndims(x)]
    foreach(k -> pads[ndims(x) - k + 1] = [-ends[k][1], space[k] - whole[k] + ends[k][1]], 1:N)
    foreach(k -> (cut = pads[ndims(x) - k + 1]; y = along(y, k, (1 - cut[1]):min(whole[k], whole[k] + cut[2]))), 1:N)
    more = [(0, max(0, pads[ndims(x) - k + 1][2])) for k in 1:N]
    return all(==((0, 0)), more) ? y : first(with_padding(y, more, 0))
end

# Pools.

function pooled(op::String, x::Traced, dims::NNlib.PoolDims, value::Real; attributes...)
    N = ndims(x) - 2
    kernel = NNlib.kernel_size(dims)
    padded, padding = with_padding(as_numbers(x), sides(dims, N), value, kernel .÷ 2)
    out = (NNlib.output_size(dims)..., size(x, N + 1), size(x, N + 2))
    return emit(op, padded, out; kernel=reversed(kernel), stride=reversed(NNlib.stride(dims)), padding=reverse(padding), ceil_mode=false,
        attributes...)
end
NNlib.maxpool(x::Traced, dims::NNlib.PoolDims) = pooled("max_pool", x, dims, -Inf; dilation=reversed(NNlib.dilation(dims)))
NNlib.meanpool(x::Traced, dims::NNlib.PoolDims) = pooled("mean_pool", x, dims, 0; count_padding=true)

# Tables, padding, resolution.

function NNlib.gather(table::Traced{T,2}, tokens::Traced{<:Integer}) where {T}
    return emit(table.trace, "embedding", (table, tokens), T, (size(table, 1), size(tokens)...), tokens.batched; padding=-1)
end
NNlib.gather(x::Traced, indices::AbstractArray{<:Integer}) =
    reshape(along(x, ndims(x), vec(collect(indices))), (size(x)[1:(end - 1)]..., size(indices)...))

function NNlib.pad_constant(x::Traced, pad::Tuple{Integer,Integer,Vararg{Integer}}, value=0; dims=Tuple(1:(length(pad) ÷ 2)))
    ends = [(0, 0) for _ in 1:ndims(x)]
    foreach((k, j) -> ends[k] = (pad[2j - 1], pad[2j]), dims, 1:(length(pad) ÷ 2))
    pads = [collect(Int, pair) for pair in reverse(ends)]
    all(==((0, 0)), ends) && return x
    return emit("pad", as_numbers(x), size(x) .+ Tuple(map(sum, ends)); pads, mode="constant", value=number(value))
end
NNlib.pad_zeros(x::Traced, pad::Tuple; dims=Tuple(1:(length(pad) ÷ 2))) = NNlib.pad_constant(x, pad, 0; dims)

NNlib.upsample_nearest(x::Traced{T,N}, scales::NTuple{S,<:Integer}) where {T,N,S} =
    foldl(((y, k) -> along(y, k, repeat(1:size(y, k); inner=scales[k]))), eachindex(scales); init=x)

"a linear map along the first axes of images, one after the other: what NNlib does with each unit vector"
function NNlib.upsample_linear(x::Traced{T,N}; size, align_corners::Bool=true) where {T<:AbstractFloat,N}
    y = x
    for k in 1:(N - 2)
        from, to = Base.size(x, k), size[k]
        from == to && continue
        unit = reshape(Matrix{T}(I, from, from), from, 1, from)
        map_of_axis = dropdims(NNlib.upsample_linear(unit; size=(to,), align_corners); dims=2)
        order = (k, setdiff(1:N, k)...)
        first_axis = permutedims(y, order)
        flat = map_of_axis * reshape(first_axis, from, :)
        y = permutedims(reshape(flat, to, Base.size(first_axis)[2:end]...), invperm(order))
    end
    return y
end

NNlib.dropout(rng::AbstractRNG, x::Traced, p::Real; dims=:) = iszero(p) ? x : throw(Untraceable("it draws random numbers"))
